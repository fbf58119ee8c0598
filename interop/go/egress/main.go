// Dials through a proxy-server as kube-apiserver does, with kube-apiserver's own egress dialer, and says what worked.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/server/egressselector"
	"k8s.io/component-base/metrics/legacyregistry"
)

const (
	// How long one dial with what follows on it may take.
	patience = 20 * time.Second
	greeting = "SSH-2.0-egress_check\r\n"
	farewell = "farewell\n"
)

var (
	config   = flag.String("config", "", "EgressSelectorConfiguration file, as for kube-apiserver's --egress-selector-config-file")
	gets     = flag.Int("gets", 100, "requests with net/http, for each kind of target")
	banners  = flag.Int("banners", 300, "dials to targets that speak first, for each length of banner")
	parallel = flag.Int("parallel", 8, "how many of them at a time")

	dial   utilnet.DialFunc
	failed bool
)

func main() {
	flag.Parse()
	var err error
	dial, err = clusterDialer(*config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "egress-dialer:", err)
		os.Exit(2)
	}
	// The dialer itself waits for the answer to its CONNECT without a limit.
	time.AfterFunc(5*time.Minute, func() {
		fmt.Println("FAIL  not done within 5 minutes")
		os.Exit(1)
	})

	checkGets()
	checkBanner(greeting)
	checkBanner(greeting + strings.Repeat("and a long welcome\n", 5000))
	checkError("a port that refuses", refusingAddress(), "code 502: ")
	checkError("a name that does not exist", "does-not-exist.invalid:80", "code 502: ")
	checkHalfClose()
	printMetrics()
	if failed {
		fmt.Println("FAILED")
		os.Exit(1)
	}
	fmt.Println("all passed")
}

// clusterDialer takes the steps of kube-apiserver's start: read, validate, build, look up.
func clusterDialer(file string) (utilnet.DialFunc, error) {
	read, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		return nil, err
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(read); len(errs) > 0 {
		return nil, fmt.Errorf("%s is not valid: %w", file, errs.ToAggregate())
	}
	selector, err := egressselector.NewEgressSelector(read)
	if err != nil {
		return nil, err
	}
	if selector == nil {
		return nil, errors.New("--config names no selection")
	}
	dial, err := selector.Lookup(egressselector.Cluster.AsNetworkContext())
	if err == nil && dial == nil {
		err = fmt.Errorf("%s has no selection named cluster", file)
	}
	return dial, err
}

// checkGets fetches over HTTP/1.1, with a dial for each request, and over TLS and HTTP/2, as from a kubelet.
func checkGets() {
	body := bytes.Repeat([]byte("hello through the tunnel\n"), 1000)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })
	plain, secure := httptest.NewServer(page), httptest.NewUnstartedServer(page)
	secure.EnableHTTP2 = true
	// Connections that the client gives up, because it can use another one, are not worth a line.
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer plain.Close()
	defer secure.Close()

	for _, server := range []*httptest.Server{plain, secure} {
		name := "HTTP/1.1"
		if server == secure {
			name = "HTTP/2.0"
		}
		transport := server.Client().Transport.(*http.Transport).Clone()
		transport.DialContext = dial
		transport.DisableKeepAlives = server == plain
		client := http.Client{Transport: transport, Timeout: patience}
		check(fmt.Sprintf("GET over %s", name), *gets, func() error {
			response, err := client.Get(server.URL)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			got, err := io.ReadAll(response.Body)
			if err == nil && (response.Proto != name || !bytes.Equal(got, body)) {
				err = fmt.Errorf("%s, %d of %d bytes", response.Proto, len(got), len(body))
			}
			return err
		})
		client.CloseIdleConnections()
	}
}

// checkBanner dials a target that speaks at once, as an SSH server does; then sends it a line and reads it back.
func checkBanner(banner string) {
	address, stop := serve(func(conn net.Conn) {
		io.WriteString(conn, banner)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		io.WriteString(conn, line)
	})
	defer stop()
	check(fmt.Sprintf("target that speaks first, %d bytes", len(banner)), *banners, func() error {
		conn, err := connect(address)
		if err != nil {
			return err
		}
		defer conn.Close()
		got := make([]byte, len(banner))
		if count, err := io.ReadFull(conn, got); err != nil {
			return fmt.Errorf("%d bytes of the banner, then %w", count, err)
		}
		if string(got) != banner {
			return errors.New("the banner is not what the target sent")
		}
		if _, err := io.WriteString(conn, farewell); err != nil {
			return err
		}
		return readRest(conn, farewell)
	})
}

func checkError(name, address, want string) {
	_, err := connect(address)
	if err == nil || !strings.Contains(err.Error(), want) {
		report(false, "%s: want an error with %q, got %v", name, want, err)
		return
	}
	report(true, "%s: %v", name, err)
}

// checkHalfClose sends a file, ends its own half, and reads what the target says only after that.
func checkHalfClose() {
	const count = 1 << 20
	address, stop := serve(func(conn net.Conn) {
		received, err := io.Copy(io.Discard, conn)
		fmt.Fprintf(conn, "%d bytes, error %v", received, err)
	})
	defer stop()
	check("half-close", 1, func() error {
		conn, err := connect(address)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(make([]byte, count)); err != nil {
			return err
		}
		half, can := conn.(interface{ CloseWrite() error })
		if !can {
			return fmt.Errorf("%T cannot end one half", conn)
		}
		if err := half.CloseWrite(); err != nil {
			return err
		}
		return readRest(conn, fmt.Sprintf("%d bytes, error %v", count, nil))
	})
}

// connect dials and bounds all that follows.
func connect(address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := dial(ctx, "tcp", address)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

func readRest(conn net.Conn, want string) error {
	got, err := io.ReadAll(conn)
	if err == nil && string(got) != want {
		err = fmt.Errorf("want %q and the end, got %q", want, got)
	}
	return err
}

// serve runs a target on a loopback port, for each connection a goroutine that closes it in the end.
func serve(handle func(net.Conn)) (address string, stop func() error) {
	listener := listen()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return listener.Addr().String(), listener.Close
}

func refusingAddress() string {
	listener := listen()
	defer listener.Close()
	return listener.Addr().String()
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return listener
}

var sourcePort = regexp.MustCompile(`127\.0\.0\.1:\d+->`)

// check makes many tries, some at a time, and reports them as one line, with one more for each kind of failure.
func check(name string, tries int, try func() error) {
	var lock sync.Mutex
	failures := map[string]int{}
	good := tries
	slots := make(chan struct{}, *parallel)
	var all sync.WaitGroup
	for range tries {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := try(); err != nil {
				lock.Lock()
				defer lock.Unlock()
				failures[sourcePort.ReplaceAllString(err.Error(), "")]++
				good--
			}
		})
	}
	all.Wait()
	report(good == tries, "%s: %d of %d", name, good, tries)
	for text, times := range failures {
		fmt.Printf("      %d times: %.200s\n", times, text)
	}
}

func report(good bool, format string, values ...any) {
	verdict := "ok  "
	if !good {
		verdict, failed = "FAIL", true
	}
	fmt.Printf(verdict+"  "+format+"\n", values...)
}

// printMetrics prints what kube-apiserver would expose about these dials.
func printMetrics() {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		report(false, "metrics: %v", err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "apiserver_egress_dialer_") {
			continue
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetValue())
			}
			slices.Sort(labels)
			count := metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			fmt.Printf("      %s{%s} %.0f\n", family.GetName(), strings.Join(labels, ","), count)
		}
	}
}
