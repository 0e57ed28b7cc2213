// The npm package oidc-provider 7.11.5 behind Tailchat's routes and with Tailchat's settings.
//
// One JSON line on standard input says who there is: { users, apps, issuer }.
// users: [{ sub, email, password, claims }]; apps: [{ client_id, client_secret, name, redirect_uris }];
// issuer: "" means http://127.0.0.1:PORT. One JSON line on standard output says { port, issuer }.
// Each further line on standard input, { advance }, puts the provider's clock forward by so many
// seconds and is answered by { ahead }, how far it is ahead by then.
// The server listens on 127.0.0.1 and ends when standard input does.

'use strict';

const http = require('http');
const readline = require('readline');

// The provider prints its advice to the console; standard output carries the one JSON line only.
console.log = console.info = console.warn = console.error;

let ahead = 0;
const realNow = Date.now;
Date.now = () => realNow() + ahead * 1000;

const { Provider } = require('oidc-provider');

const NOT_FOUND = '{"name":"NotFoundError","message":"Not found","code":404,"type":"NOT_FOUND"}';
const PROVIDER_ROUTES = [
  ['GET', /^\/auth\/?$/],
  ['GET', /^\/auth\/[^/]+\/?$/],
  ['POST', /^\/token\/?$/],
  ['OPTIONS', /^\/(token|me)$/],
  ['GET', /^\/me\/?$/],
  ['POST', /^\/me\/?$/],
  ['GET', /^\/jwks\/?$/],
  ['GET', /^\/\.well-known\/openid-configuration\/?$/],
];

function settings(users, apps) {
  const bySub = new Map(users.map((user) => [user.sub, user]));
  return {
    // Tailchat's adapter looks each app up in its database and builds the same entry.
    clients: apps.map((app) => ({
      client_id: app.client_id,
      client_secret: app.client_secret,
      client_name: app.name,
      application_type: 'web',
      grant_types: ['refresh_token', 'authorization_code'],
      redirect_uris: app.redirect_uris,
    })),
    pkce: { methods: ['S256'], required: () => false },
    claims: { profile: ['nickname', 'discriminator', 'avatar'] },
    findAccount(ctx, sub) {
      return {
        accountId: sub,
        claims() {
          const user = bySub.get(sub);
          if (user === undefined) {
            throw new Error('no such user');
          }
          return { ...user.claims, sub };
        },
      };
    },
    cookies: { keys: ['__tailchat_oidc'] },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (ctx, interaction) => `/open/interaction/${interaction.uid}` },
  };
}

function escapeHtml(text) {
  return String(text).replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function page(title, body) {
  return `<!DOCTYPE html><html lang="zh"><head><meta charset="utf-8"><title>${title}</title></head>`
    + `<body>${body}</body></html>`;
}

function loginPage(uid) {
  return page('Tailchat', `<form method="post" action="/open/interaction/${uid}/login">`
    + '<label>邮箱 Email <input name="email" type="email" autocomplete="username" required></label>'
    + '<label>密码 Password <input name="password" type="password" required></label>'
    + '<button type="submit">登录 Sign in</button></form>');
}

function consentPage(uid, clientName) {
  return page('Tailchat', `<p>${escapeHtml(clientName)}</p>`
    + `<form method="post" action="/open/interaction/${uid}/confirm">`
    + '<button type="submit" autofocus>授权 Authorize</button></form>');
}

async function body(req) {
  const chunks = [];
  for await (const chunk of req) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function showInteraction(provider, req, res) {
  const { uid, prompt, params } = await provider.interactionDetails(req, res);
  const client = await provider.Client.find(String(params.client_id));
  const html = prompt.name === 'login' ? loginPage(uid) : consentPage(uid, client.clientName);
  res.writeHead(200, { 'Content-Type': 'text/html' });
  res.end(html);
}

async function login(provider, users, req, res) {
  const { prompt } = await provider.interactionDetails(req, res);
  if (prompt.name !== 'login') {
    throw new Error('this interaction is not a login');
  }
  const form = new URLSearchParams(await body(req));
  const user = users.find(({ email }) => email === form.get('email'));
  if (user === undefined) {
    throw Object.assign(new Error('User does not exist, please check your email'), { name: 'EntityError' });
  }
  if (user.password !== form.get('password')) {
    throw Object.assign(new Error('Wrong password'), { name: 'EntityError' });
  }
  const result = { login: { accountId: user.sub } };
  await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: false });
}

async function confirm(provider, req, res) {
  const details = await provider.interactionDetails(req, res);
  const { prompt, params, session, grantId } = details;
  if (prompt.name !== 'consent') {
    throw new Error('this interaction is not a consent');
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: String(params.client_id) });
  if (prompt.details.missingOIDCScope) {
    grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  }
  const saved = await grant.save();
  const result = { consent: grantId ? {} : { grantId: saved } };
  await provider.interactionFinished(req, res, result, { mergeWithLastSubmission: true });
}

const INTERACTIONS = [
  ['GET', /^\/interaction\/[^/]+$/, (provider, users, req, res) => showInteraction(provider, req, res)],
  ['POST', /^\/interaction\/[^/]+\/login$/, login],
  ['POST', /^\/interaction\/[^/]+\/confirm$/, (provider, users, req, res) => confirm(provider, req, res)],
];

// What Tailchat's own gateway does before the provider sees a request: only these methods and
// paths pass, everything else (each HEAD, too) is its 404.
function gateway(provider, users) {
  const callback = provider.callback();
  return async (req, res) => {
    const [path] = req.url.split('?', 1);
    const inner = path.startsWith('/open/') ? path.slice('/open'.length) : '';
    const matches = ([method, pattern]) => method === req.method && pattern.test(inner);
    const interaction = INTERACTIONS.find(matches);
    if (path === '/health' && req.method === 'GET') {
      res.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8' });
      res.end('{"nodeID":"test","services":[]}');
    } else if (PROVIDER_ROUTES.some(matches)) {
      req.originalUrl = req.url;
      req.url = req.url.slice('/open'.length);
      callback(req, res);
    } else if (interaction) {
      try {
        await interaction[2](provider, users, req, res);
      } catch (error) {
        res.writeHead(500);
        res.end(page('Tailchat', escapeHtml(error)));
      }
    } else {
      res.writeHead(404, { 'Content-Type': 'application/json; charset=utf-8' });
      res.end(NOT_FOUND);
    }
  };
}

function start({ users, apps, issuer }) {
  const server = http.createServer();
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const apiUrl = issuer || `http://127.0.0.1:${port}`;
    const provider = new Provider(apiUrl, settings(users, apps));
    provider.proxy = true; // OPENAPI_UNDER_PROXY=true, as in Tailchat's compose file
    provider.on('server_error', (ctx, error) => console.error(error));
    server.on('request', gateway(provider, users));
    process.stdout.write(`${JSON.stringify({ port, issuer: apiUrl })}\n`);
  });
}

const input = readline.createInterface({ input: process.stdin });
input.once('line', (line) => {
  start(JSON.parse(line));
  input.on('line', (further) => {
    ahead += JSON.parse(further).advance;
    process.stdout.write(`${JSON.stringify({ ahead })}\n`);
  });
});
input.once('close', () => process.exit(0));
