package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	text, err := json.Marshal(podList(c.pods()))
	if err != nil {
		return err
	}
	file := filepath.Join(c.folder, "pods.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	if _, err := c.programs.start("kubelet", c.options.site, c.options.kubelet, "--address="+nodeAddress,
		"--tls-cert-file="+c.pki.cert("kubelet"), "--tls-private-key-file="+c.pki.key("kubelet"),
		"--client-ca-file="+c.pki.cert("ca"), "--pods="+file, "--root="+filepath.Join(c.folder, "containers")); err != nil {
		return err
	}
	return c.startAgent()
}
