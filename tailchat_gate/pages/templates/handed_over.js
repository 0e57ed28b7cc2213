// The browser delivers the message only to a page of this origin: the frame that opened this window.
(function () {
  "use strict";
  const pass = new URLSearchParams(location.search).get("pass");
  if (pass && window.opener) {
    window.opener.postMessage({ tailchatGatePass: pass }, location.origin);
    window.close();
  }
})();
