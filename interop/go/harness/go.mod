// What the programs with real Go clients share: the verdicts they print and the targets they dial.
module konnectivity-quic.invalid/interop/harness

go 1.26.0

require k8s.io/klog/v2 v2.140.0

require github.com/go-logr/logr v1.4.1 // indirect
