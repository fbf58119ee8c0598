package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// What the site's network has, and what nothing outside has a route to.
const (
	nodeAddress    = "10.250.1.1"
	podNetwork     = "10.244.1.0/24"
	serviceNetwork = "10.96.0.0/24"
)

// addSiteAddresses gives the node's namespace all addresses of pods and services: everything runs in it.
func addSiteAddresses(site string) error {
	for _, address := range []string{nodeAddress + "/32", podNetwork, serviceNetwork} {
		output, err := exec.Command("ip", "-n", site, "address", "replace", address, "dev", "lo").CombinedOutput()
		if err != nil {
			return fmt.Errorf("cannot add %s to the namespace %s: %w: %s", address, site, err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}

// startSite starts the kubelet, which starts the pods, and the agent.
func (c *cluster) startSite() error {
	if err := c.startKubelet(); err != nil {
		return err
	}
	return c.startAgent()
}

func (c *cluster) startKubelet() error {
	text, err := json.Marshal(podList(c.pods()))
	if err != nil {
		return err
	}
	file := filepath.Join(c.folder, "pods.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	argv := append([]string{c.options.kubelet}, c.kubeletFlags()...)
	_, err = c.programs.start("kubelet", c.options.site, append(argv, "--address="+nodeAddress,
		"--tls-cert-file="+c.pki.cert("kubelet"), "--tls-private-key-file="+c.pki.key("kubelet"),
		"--client-ca-file="+c.pki.cert("ca"), "--pods="+file, "--root="+filepath.Join(c.folder, "containers"))...)
	return err
}

// inSite is a client in the site's namespace, where the agents' pages are.
func (o *options) inSite() *http.Client {
	type dialled struct {
		connection net.Conn
		err        error
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		done := make(chan dialled, 1)
		go func() {
			// Not unlocked: the thread ends with this goroutine, and the namespace is on no other.
			runtime.LockOSThread()
			connection, err := dialInNamespace(ctx, o.site, network, address)
			done <- dialled{connection, err}
		}()
		got := <-done
		return got.connection, got.err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// dialInNamespace moves the calling thread into a namespace.
func dialInNamespace(ctx context.Context, namespace, network, address string) (net.Conn, error) {
	file, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("setns %s: %w", namespace, err)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
