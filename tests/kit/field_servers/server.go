// Answers with all that net/http tells of a request, its trailers too.
package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
)

func answer(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "path": r.URL.Path, "uri": r.RequestURI, "host": r.Host,
		"from": from, "headers": r.Header, "trailers": r.Trailer,
	})
}

func main() {
	http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(answer))
}
