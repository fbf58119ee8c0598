package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"

	"k8s.io/client-go/rest"
	"konnectivity-quic.invalid/interop/harness/check"
)

// checkRequests sends requests over net/http with a dial for each, as to a webhook on plain HTTP, and over client-go's
// transport with TLS, as to a kubelet or an aggregated API: HTTP/2 on one dial, and HTTP/1.1 with dials that are kept.
func checkRequests() {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			hash := sha256.New()
			io.Copy(hash, r.Body)
			w.Write(hash.Sum(nil))
			return
		}
		w.Write(greetings)
	})
	plain := httptest.NewServer(page)
	defer plain.Close()
	requests("net/http, HTTP/1.1, a dial for each", plain.URL, "HTTP/1.1", &http.Transport{DialContext: dial, DisableKeepAlives: true})

	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		server := secureServer(page, protocol == "HTTP/2.0")
		transport, err := clientTransport(server, protocol)
		if err != nil {
			check.Once("client-go, TLS, "+protocol, func() error { return err })
			continue
		}
		requests("client-go, TLS, "+protocol, server.URL, protocol, transport)
		server.Close()
	}
}

var greetings = bytes.Repeat([]byte("hello through the tunnel\n"), 1000)

// secureServer has a certificate for its address, as a kubelet has.
func secureServer(handler http.Handler, http2 bool) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = http2
	// Connections that the client gives up, because it can use another one, are not worth a line.
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	return server
}

// clientTransport is client-go's for a server, with the egress dialer below it.
func clientTransport(server *httptest.Server, protocol string) (http.RoundTripper, error) {
	config := &rest.Config{Host: server.URL, Dial: dial}
	config.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if protocol == "HTTP/1.1" {
		config.NextProtos = []string{"http/1.1"}
	}
	return rest.TransportFor(config)
}

func requests(name, url, protocol string, transport http.RoundTripper) {
	client := http.Client{Transport: transport, Timeout: check.Patience}
	check.Tries("GET, "+name, tries(100, 1000), 8, func(int) error {
		response, err := client.Get(url)
		return wantBody(response, err, protocol, greetings)
	})
	upload := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(upload)
	sum := sha256.Sum256(upload)
	check.Tries("POST of 8 MiB, "+name, tries(4, 20), 4, func(int) error {
		response, err := client.Post(url, "application/octet-stream", bytes.NewReader(upload))
		return wantBody(response, err, protocol, sum[:])
	})
	client.CloseIdleConnections()
}

func wantBody(response *http.Response, err error, protocol string, want []byte) error {
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.Proto != protocol || !bytes.Equal(got, want) {
		return errors.Join(fmt.Errorf("%s, %d bytes", response.Proto, len(got)), errors.New("want other ones"))
	}
	return nil
}
