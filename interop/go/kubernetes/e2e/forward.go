package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// forwarding is a kubectl port-forward, and where it listens for each port.
type forwarding struct {
	*background
	local map[int]string
}

func (c *cluster) forward(ctx context.Context, over transport, ports ...int) (*forwarding, error) {
	arguments := []string{"port-forward", "--address=127.0.0.1", "pod/web"}
	for _, port := range ports {
		arguments = append(arguments, fmt.Sprintf(":%d", port))
	}
	kubectl, err := c.beside(ctx, over, arguments...)
	if err != nil {
		return nil, err
	}
	f := &forwarding{kubectl, map[int]string{}}
	said := bufio.NewScanner(kubectl.stdout)
	for len(f.local) < len(ports) && said.Scan() {
		var local, port int
		if _, err := fmt.Sscanf(said.Text(), "Forwarding from 127.0.0.1:%d -> %d", &local, &port); err == nil {
			f.local[port] = fmt.Sprintf("127.0.0.1:%d", local)
		}
	}
	if len(f.local) < len(ports) {
		f.end()
		return nil, fmt.Errorf("kubectl does not forward; it said: %s", kubectl.stderr)
	}
	// It says something for each connection, and would wait for a reader.
	go io.Copy(io.Discard, kubectl.stdout)
	return f, nil
}

func forwardMany(over transport) func(context.Context, *cluster) (string, error) {
	return func(ctx context.Context, c *cluster) (string, error) {
		forwarding, err := c.forward(ctx, over, webPort)
		if err != nil {
			return "", err
		}
		defer forwarding.end()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		return "", atOnce(20, func(int) error {
			sent := make([]byte, 100_000)
			rand.Read(sent)
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+forwarding.local[webPort]+"/echo", bytes.NewReader(sent))
			if err != nil {
				return err
			}
			answer, err := client.Do(request)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			got, err := io.ReadAll(answer.Body)
			if err == nil && !bytes.Equal(sent, got) {
				err = fmt.Errorf("%d bytes back, not the %d that were sent", len(got), len(sent))
			}
			return err
		})
	}
}

func forwardDown(ctx context.Context, c *cluster) (string, error) {
	forwarding, err := c.forward(ctx, webSocket, webPort)
	if err != nil {
		return "", err
	}
	defer forwarding.end()
	size := c.size(50_000_000, 5_000_000)
	start := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/bytes?size=%d", forwarding.local[webPort], size), nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	hash := sha256.New()
	got, err := io.Copy(hash, answer.Body)
	if err != nil {
		return "", err
	}
	return megabytes(size, start), errors.Join(
		want("bytes", fmt.Sprint(size), fmt.Sprint(got)),
		want("SHA-256", answer.Trailer.Get("Sha256"), fmt.Sprintf("%x", hash.Sum(nil))),
	)
}

// forwardUp ends its half before there is an answer.
func forwardUp(ctx context.Context, c *cluster) (string, error) {
	forwarding, err := c.forward(ctx, webSocket, sumsPort)
	if err != nil {
		return "", err
	}
	defer forwarding.end()
	start := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", forwarding.local[sumsPort])
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent := make([]byte, c.size(50_000_000, 5_000_000))
	rand.Read(sent)
	if _, err := conn.Write(sent); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	return megabytes(len(sent), start), want("SHA-256", fmt.Sprintf("%x\n", sha256.Sum256(sent)), string(got))
}

// forwardClosed must end the connection and say why, and leave other ports alone.
func forwardClosed(ctx context.Context, c *cluster) (string, error) {
	kubectl, err := c.forward(ctx, webSocket, closedPort)
	if err != nil {
		return "", err
	}
	defer kubectl.end()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", kubectl.local[closedPort])
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		return "", fmt.Errorf("a closed port sent %q", got)
	}
	// kubectl ends by itself after that.
	kubectl.command.Wait()
	if !strings.Contains(kubectl.stderr.String(), "connection refused") {
		return "", want("kubectl's words", "connection refused", kubectl.stderr.String())
	}
	return "", nil
}

func megabytes(size int, start time.Time) string {
	megabytes := float64(size) / 1e6
	return fmt.Sprintf("%.0f MB, %.1f MB/s", megabytes, megabytes/time.Since(start).Seconds())
}

// atOnce does something so many times at once and joins the errors.
func atOnce(count int, do func(number int) error) error {
	failures := make(chan error, count)
	for number := range count {
		go func() { failures <- do(number) }()
	}
	var all []error
	for range count {
		if err := <-failures; err != nil {
			all = append(all, err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d failed: %w", len(all), count, all[0])
}
