// A node's far end: the kubelet's own HTTP server and the CRI streaming server, above a runtime that runs containers as
// plain processes of this machine. There is no kubelet behind it that would ask an API server: pods come from a file.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"go.opentelemetry.io/otel/trace/noop"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/cri-streaming/pkg/streaming"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/server"
)

var (
	address  = flag.String("address", "", "the node's address")
	port     = flag.Int("port", 10250, "the kubelet's port")
	certFile = flag.String("tls-cert-file", "", "certificate of the kubelet's API")
	keyFile  = flag.String("tls-private-key-file", "", "its key")
	clientCA = flag.String("client-ca-file", "", "who signs the certificates that clients must have")
	podsFile = flag.String("pods", "", "a v1.PodList, JSON: the pods to run, each with its address in status.podIP")
	spoils   = flag.Bool("spoil", false, "change bytes of logs and streams, to see that the checks notice")
	root     = flag.String("root", "", "folder for the containers' working directories and logs")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		os.Exit(1)
	}
}

func run() error {
	pods, err := readPods(*podsFile)
	if err != nil {
		return err
	}
	runtime, err := startPods(pods, *root)
	if err != nil {
		return err
	}
	streams, err := serveStreams(runtime)
	if err != nil {
		return err
	}
	security, err := tlsConfig()
	if err != nil {
		return err
	}
	host := &host{pods: pods, runtime: runtime, streams: streams}
	config := &kubeletconfig.KubeletConfiguration{Address: *address, Port: int32(*port), EnableDebuggingHandlers: true}
	// It ends the program when it cannot listen. The client certificate is all that it asks for.
	server.ListenAndServeKubeletServer(context.Background(), host, nil, nil, nil, config, security, nil, noop.NewTracerProvider())
	return nil
}

func readPods(file string) ([]*v1.Pod, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list v1.PodList
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	pods := make([]*v1.Pod, len(list.Items))
	for number := range list.Items {
		pods[number] = &list.Items[number]
	}
	return pods, nil
}

// serveStreams runs the CRI streaming server as container runtimes do: on a loopback port that only the kubelet uses.
func serveStreams(runtime *processes) (streaming.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config := streaming.DefaultConfig
	config.BaseURL = &url.URL{Scheme: "http", Host: listener.Addr().String()}
	streams, err := streaming.NewServer(config, runtime)
	if err != nil {
		return nil, err
	}
	go http.Serve(listener, streams)
	return streams, nil
}

func tlsConfig() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(*certFile, *keyFile)
	if err != nil {
		return nil, err
	}
	clients, err := cert.NewPool(*clientCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}, nil
}
