"""Pages of refused logins, and the operator's log line where every login is refused."""

import json
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from tailchat_gate.endpoints.login_targets import Bindings, Targets
from tailchat_gate.identity.oauth.login import LoginRefused
from tailchat_gate.identity.oauth.login_state import browser_hash, is_bound_to
from tailchat_gate.identity.seal import KeyRing
from tailchat_gate.observe.audit import Audit
from tailchat_gate.observe.log import Faults
from tailchat_gate.observe.metrics import Metrics
from tailchat_gate.reasons import Reason
from tailchat_gate.request.context import RequestContext
from tailchat_gate.request.intent import wants_html
from tailchat_gate.request.target import query_pairs
from tailchat_gate.responses.answers import Answers

#: Of what a refusal tells, what is for the gate itself.
_NOT_SHOWN: Final = frozenset(("return_to", "retry_after"))
#: Refusals that everybody gets until the operator mends something, and what that is.
_FOR_ALL: Final = {
    Reason.GATE_NOT_ACCEPTED: (
        "Tailchat does not accept the gate: look at tailchat.client_id, client_secret and the "
        "redirect URI of the app"
    ),
    Reason.LOGIN_ISSUER_WRONG: (
        "sign-ins come back from another issuer than expected: look at Tailchat's API_URL and at "
        "tailchat.issuer"
    ),
    Reason.LOGIN_ID_TOKEN: "the id_token of a sign-in does not pass its checks",
    Reason.TAILCHAT_DOWN: "no connection to Tailchat: look at tailchat.api_url",
    Reason.TAILCHAT_UNTRUSTED: (
        "the certificate of Tailchat is not trusted: name its authority in tailchat.ca_file, or by "
        "the environment variable SSL_CERT_FILE"
    ),
    Reason.TAILCHAT_SLOW: "Tailchat does not answer in time",
    Reason.TAILCHAT_BROKEN: "Tailchat does not answer properly",
    Reason.TAILCHAT_BUSY: "Tailchat, or a proxy in front of it, wants fewer requests (429)",
}


@dataclass(frozen=True, slots=True)
class LoginRefusals:
    """The refusals of logins for one configuration; `notes` seals what a page says of one."""

    answers: Answers
    bindings: Bindings
    targets: Targets
    notes: KeyRing
    metrics: Metrics
    audit: Audit
    faults: Faults

    def refuse(
        self, request: web.BaseRequest, context: RequestContext, refused: LoginRefused
    ) -> web.StreamResponse:
        """Return the answer to a login that is refused, and tell it to whom it concerns."""
        reason, detail = refused.reason, refused.detail
        self.metrics.login(reason)
        shown = {name: text for name, text in detail.items() if name not in _NOT_SHOWN}
        context.reason = reason
        self.audit.sign_in_refused(context, shown)
        if message := _FOR_ALL.get(reason):
            self.faults.tell(message, {"reason": reason, **shown})
        if wants_html(request.headers):
            # The address holds a code or a pass that is still good for somebody, and a script of
            # the same origin can read the address of a window it opened: the page is shown at
            # another one.
            browser = next(map(browser_hash, self.bindings.values(request)), "")
            note = json.dumps([reason, detail, browser], ensure_ascii=False)
            sealed = self.notes.seal(note.encode("utf-8", "replace"))
            location = f"{context.path}?refused={sealed}"
            return self.answers.redirect(location, status=303)
        return self.answers.problem(
            context, reason, detail=shown, headers=_retry_after(detail.get("retry_after", ""))
        )

    def before(self, request: web.BaseRequest, context: RequestContext) -> web.Response | None:
        """Return the page that a refusal led to, None where the query names no refusal.

        What was said of it is for the browser that was refused: some of it may be in the words of
        whoever sent that browser here, and must not be shown to others as the gate's.
        """
        note = self.notes.open(dict(query_pairs(context.target.query)).get("refused", ""))
        if note is None:
            return None
        reason, detail, browser = json.loads(note)
        if browser and not is_bound_to(browser, self.bindings.values(request)):
            detail = {}
        return_to = self.targets.safe(detail.pop("return_to", "/"), context.host)
        return self.answers.problem(
            context,
            Reason(reason),
            headers=_retry_after(detail.pop("retry_after", "")),
            detail=detail,
            retry_url=self.answers.start_url(return_to),
        )


def _retry_after(seconds: str) -> dict[str, str]:
    return {"Retry-After": seconds} if seconds else {}
