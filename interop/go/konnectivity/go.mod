// The client library of the Go reference, in its two ways to dial, to prove that it works with konnectivity-quic.
// scripts/interop.sh runs it; nothing of the product is written in Go.
//
// This version is the first that dials many times over one connection. kube-apiserver 1.37 has the one before, which is
// what ../egress is built with.
module konnectivity-quic.invalid/interop/konnectivity

go 1.26.0

require (
	google.golang.org/grpc v1.82.1
	konnectivity-quic.invalid/interop/harness v0.0.0
	sigs.k8s.io/apiserver-network-proxy/konnectivity-client v0.37.0
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.24.0 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.70.0 // indirect
	github.com/prometheus/procfs v0.21.1 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	google.golang.org/protobuf v1.36.12-0.20260120151049-f2248ac996af // indirect
	k8s.io/klog/v2 v2.140.0 // indirect
)

replace konnectivity-quic.invalid/interop/harness => ../harness
