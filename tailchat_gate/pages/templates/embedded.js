// The window that this page opens signs in and hands the result over. A page of another origin cannot
// read the message, and what it sends here is not looked at.
(function () {
  "use strict";
  const link = document.getElementById("sign-in");
  addEventListener("message", function (event) {
    const pass = event.origin === location.origin && event.data && event.data.tailchatGatePass;
    if (typeof pass === "string") {
      location.replace(link.dataset.arrive + "?pass=" + encodeURIComponent(pass));
    }
  });
})();
