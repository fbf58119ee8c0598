// Package complaint counts what the Go libraries log as errors instead of printing it among the verdicts.
package complaint

import (
	"flag"
	"strings"
	"sync"

	"k8s.io/klog/v2"
	"konnectivity-quic.invalid/interop/harness/check"
)

var (
	lock   sync.Mutex
	counts = map[string]int{}
)

type counter struct{}

// Write gets one line: its head, the text, and pairs of which the ids differ each time.
func (counter) Write(line []byte) (int, error) {
	lock.Lock()
	defer lock.Unlock()
	_, text, _ := strings.Cut(string(line), "] ")
	before, after, _ := strings.Cut(text, " connectionID=")
	_, after, _ = strings.Cut(after, " ")
	counts[strings.TrimSpace(before+" "+after)]++
	return len(line), nil
}

// Count begins to count. "Connection not recognized" for a DATA packet means that the client library has lost bytes.
func Count() {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{"logtostderr": "false", "stderrthreshold": "FATAL", "one_output": "true"} {
		flags.Set(name, value)
	}
	klog.SetOutput(counter{})
}

// Note prints what was counted.
func Note() {
	klog.Flush()
	lock.Lock()
	defer lock.Unlock()
	for text, count := range counts {
		check.Note("logged by a library %d times: %.200s", count, text)
	}
}
