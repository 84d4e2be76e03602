// Both ends of the wire that proxies are measured on, and one proxy of Go's own library.
//
//	wire upstream [engine]   answers chats; hands what is no chat to the engine at that URL
//	wire load                sends the requests that are asked for on stdin
//	wire proxy upstream      httputil.ReverseProxy in front of that URL
//
// Servers take a free port and print their URL. Standard library only, so nothing is fetched.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	role, rest := os.Args[1], os.Args[2:]
	switch role {
	case "upstream":
		serve(newUpstream(rest))
	case "load":
		obey(os.Stdin, os.Stdout)
	case "proxy":
		serve(proxyTo(rest[0]))
	default:
		log.Fatalf("%s is no role", role)
	}
}

func serve(handler http.Handler) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, handler))
}

// proxyTo returns the library's proxy as it comes, but for its pool: two idle connections, the
// default, would make it connect anew for most requests; and for full duplex, without which it
// breaks off a stream now and then (golang/go#40747).
func proxyTo(target string) http.Handler {
	parsed, err := url.Parse(target)
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(parsed)
	proxy.Transport = pool()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			log.Print(err)
		}
		proxy.ServeHTTP(w, r)
	})
}

// pool returns connections that are kept however many there are.
func pool() *http.Transport {
	return &http.Transport{
		MaxIdleConns:        0,
		MaxIdleConnsPerHost: 4096,
		DisableCompression:  true,
	}
}
