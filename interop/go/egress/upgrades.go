package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	exec "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	clientspdy "k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"konnectivity-quic.invalid/interop/harness/check"
)

// front is a server with the handler by which kube-apiserver passes upgraded connections on to kubelets, on top of the
// egress dialer.
func front(kubelet *httptest.Server) (*httptest.Server, error) {
	location, err := url.Parse(kubelet.URL)
	if err != nil {
		return nil, err
	}
	transport, err := clientTransport(kubelet, "HTTP/1.1")
	if err != nil {
		return nil, err
	}
	return httptest.NewServer(proxy.NewUpgradeAwareHandler(location, transport, false, true, refuser{})), nil
}

type refuser struct{}

func (refuser) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusBadGateway)
}

// checkWebSocket sends messages of many sizes to a WebSocket target and reads them back, several connections at a time.
func checkWebSocket() {
	kubelet := secureServer(http.HandlerFunc(echoMessages), false)
	defer kubelet.Close()
	front, err := front(kubelet)
	if err != nil {
		check.Once("WebSocket", func() error { return err })
		return
	}
	defer front.Close()
	check.Tries("WebSocket, 100 messages of up to 64 KiB each", tries(16, 100), 8, func(int) error {
		conn, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(front.URL, "http"), nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for number := range 100 {
			message := bytes.Repeat([]byte{byte(number)}, number*number*64<<10/10_000)
			if err := conn.WriteMessage(websocket.BinaryMessage, message); err != nil {
				return err
			}
			if _, got, err := conn.ReadMessage(); err != nil || !bytes.Equal(got, message) {
				return fmt.Errorf("message %d: %d of %d bytes back, error %w", number, len(got), len(message), err)
			}
		}
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "bye")
		if err := conn.WriteMessage(websocket.CloseMessage, bye); err != nil {
			return err
		}
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			return fmt.Errorf("want the answer to the close message, got %w", err)
		}
		return nil
	})
}

func echoMessages(w http.ResponseWriter, r *http.Request) {
	conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}

// checkExec runs client-go's `kubectl exec` over SPDY in the two ways that kube-apiserver has to reach a kubelet: it
// passes a client's SPDY on, or speaks it itself on behalf of a client that came with WebSocket.
func checkExec() {
	kubelet := secureServer(http.HandlerFunc(serveExec), false)
	defer kubelet.Close()
	front, err := front(kubelet)
	if err != nil {
		check.Once("SPDY", func() error { return err })
		return
	}
	defer front.Close()
	check.Tries("SPDY exec passed on, 1 MiB each way", tries(16, 100), 8, func(int) error {
		location, err := url.Parse(front.URL)
		if err != nil {
			return err
		}
		executor, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: front.URL}, http.MethodPost, location)
		if err != nil {
			return err
		}
		return execute(executor)
	})
	check.Tries("SPDY exec of its own, 1 MiB each way", tries(16, 100), 8, func(int) error {
		transport, err := clientTransport(kubelet, "HTTP/1.1")
		if err != nil {
			return err
		}
		upgrader, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: transport, PingPeriod: 5 * time.Second})
		if err != nil {
			return err
		}
		location, err := url.Parse(kubelet.URL)
		if err != nil {
			return err
		}
		executor, err := remotecommand.NewSPDYExecutorRejectRedirects(upgrader, clientspdy.NewUpgraderForStreaming(upgrader), http.MethodPost, location)
		if err != nil {
			return err
		}
		return execute(executor)
	})
}

func execute(executor remotecommand.Executor) error {
	ctx, cancel := context.WithTimeout(context.Background(), check.Patience)
	defer cancel()
	stdin := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var stdout, stderr bytes.Buffer
	err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: bytes.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return err
	}
	if !bytes.Equal(stdout.Bytes(), stdin) || stderr.String() != farewell {
		return fmt.Errorf("%d bytes of output, stderr %q", stdout.Len(), stderr.String())
	}
	return nil
}

// serveExec is a kubelet whose only command is `cat`.
func serveExec(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{exec.StreamProtocolV4Name}); err != nil {
		return
	}
	type opened struct {
		stream httpstream.Stream
		reply  <-chan struct{}
	}
	streams := make(chan opened, 4)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, reply <-chan struct{}) error {
		streams <- opened{stream, reply}
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	named := map[string]httpstream.Stream{}
	for range 4 {
		select {
		case opened := <-streams:
			<-opened.reply
			named[opened.stream.Headers().Get(v1.StreamType)] = opened.stream
		case <-time.After(check.Patience):
			return
		}
	}
	_, err := io.Copy(named[v1.StreamTypeStdout], named[v1.StreamTypeStdin])
	io.WriteString(named[v1.StreamTypeStderr], farewell)
	status := metav1.Status{Status: metav1.StatusSuccess}
	if err != nil {
		status = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
	}
	err = json.NewEncoder(named[v1.StreamTypeError]).Encode(status)
	for _, stream := range named {
		err = errors.Join(err, stream.Close())
	}
	if err != nil {
		check.Note("the kubelet could not answer: %v", err)
	}
}
