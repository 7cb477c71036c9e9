// A registry that keeps everything in memory. With -referrers it has the API of that name, with -user and -password it
// wants them.
package main

import (
	"crypto/subtle"
	"flag"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	referrers := flag.Bool("referrers", false, "have the referrers API")
	user := flag.String("user", "", "who may read and write; everybody where it is empty")
	password := flag.String("password", "", "the user's password")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s", listener.Addr())
	inner := registry.New(registry.WithReferrersSupport(*referrers))
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, word, _ := r.BasicAuth()
		if *user != "" && subtle.ConstantTimeCompare([]byte(name+":"+word), []byte(*user+":"+*password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	log.Fatal(http.Serve(listener, guarded))
}
