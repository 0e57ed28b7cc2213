// Answers with all that Node tells of a request, its trailers too.
import { createServer } from "node:http";

createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    const { method, url, rawHeaders, trailers, socket } = request;
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ method, url, rawHeaders, trailers, from: socket.remoteAddress }));
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
