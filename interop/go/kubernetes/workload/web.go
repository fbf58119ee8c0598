package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
)

// web answers /name with its own name, /echo with the request's body, /bytes?size=N with bytes whose SHA-256 is in a
// trailer.
func web(address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/name", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "web at %s", address)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Trailer", "Sha256")
		hash := sha256.New()
		io.CopyN(io.MultiWriter(w, hash), randomBytes(), size)
		w.Header().Set("Sha256", fmt.Sprintf("%x", hash.Sum(nil)))
	})
	return http.ListenAndServe(address, mux)
}

func sums(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			hash := sha256.New()
			if _, err := io.Copy(hash, conn); err != nil {
				fmt.Fprintln(os.Stderr, "sums:", err)
				return
			}
			fmt.Fprintf(conn, "%x\n", hash.Sum(nil))
		}()
	}
}

func randomBytes() io.Reader {
	var seed [32]byte
	for number := range seed {
		seed[number] = byte(rand.Uint32())
	}
	return rand.NewChaCha8(seed)
}
