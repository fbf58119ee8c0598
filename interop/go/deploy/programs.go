package main

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// What the kubelet would put in place of variables.
var samples = strings.NewReplacer("$(HOST_IP)", "192.0.2.7", "$(NODE_NAME)", "node-7")

// A problem of this machine and not of the arguments: files that only a pod has.
var missing = regexp.MustCompile(`no such file or directory|the folder \S+ is not there`)

// checkPrograms lets the programs themselves look at their arguments. Both check everything before they open a port, and
// here the certificates that they are told of are not there, so that none gets further.
func (o *objects) checkPrograms(pod workload, programs map[string]string) {
	for _, container := range pod.spec.Containers {
		program := programs[container.Name]
		if program == "" {
			continue
		}
		if container.Command != nil {
			o.complain(pod.name, "the image's entry point is to be used")
		}
		arguments := make([]string, len(container.Args))
		for n, argument := range container.Args {
			arguments[n] = samples.Replace(argument)
		}
		seconds, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		output, err := exec.CommandContext(seconds, program, arguments...).CombinedOutput()
		late := seconds.Err() != nil
		cancel()
		if _, ended := err.(*exec.ExitError); !ended || late {
			o.complain(pod.name, "%s did not refuse to start without its files: %v", program, err)
			continue
		}
		o.judge(pod, string(output))
	}
}

// judge reads a refusal: a line for each problem behind a line with their number, or one line when a flag cannot be read.
func (o *objects) judge(pod workload, output string) {
	_, list, found := strings.Cut(output, " problem")
	if !found {
		for _, line := range strings.Split(output, "\n") {
			if strings.HasPrefix(line, "Error: ") {
				o.complain(pod.name, "%s", line)
				return
			}
		}
		o.complain(pod.name, "it ended with %.300q", output)
		return
	}
	for _, line := range strings.Split(list, "\n")[1:] {
		if strings.HasPrefix(line, "  ") && !missing.MatchString(line) {
			o.complain(pod.name, "%s", strings.TrimSpace(line))
		}
	}
}
