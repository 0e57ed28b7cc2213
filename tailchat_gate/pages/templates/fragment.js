// The #fragment of an address is never sent to a server, and the way through Tailchat drops it.
// A browser that was redirected to this page still has it, so the link hands it on inside `rd`.
(function () {
  "use strict";
  const link = document.getElementById("start");
  const plain = link.href;
  function keepFragment() {
    const url = new URL(plain);
    const rd = url.searchParams.get("rd") || "/";
    const hash = location.hash;
    if (hash.length > 1 && hash.length <= 2000 && !rd.includes("#")) {
      url.searchParams.set("rd", rd + hash);
    }
    link.href = url.href;
  }
  keepFragment();
  addEventListener("hashchange", keepFragment);
})();
