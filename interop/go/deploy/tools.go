//go:build tools

// Helm itself, of the version that go.mod names: scripts/go-peers.sh builds it.
package main

import _ "helm.sh/helm/v4/cmd/helm"
