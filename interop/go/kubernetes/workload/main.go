// What the pods run: servers and writers of lines that the checks know the answers of.
//
//	workload lines COUNT             that many numbered lines, then silence
//	workload ticks MILLISECONDS      a numbered line so often, without an end
//	workload web ADDRESS             an HTTP server
//	workload sums ADDRESS            TCP: reads to the end of the client's half, then answers with the bytes' SHA-256
//	workload webhook ADDRESS CERT KEY     a validating webhook
//	workload api ADDRESS CERT KEY CA      an aggregated API
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: workload KIND ARGUMENTS"))
	}
	kind, arguments := os.Args[1], os.Args[2:]
	var err error
	switch {
	case kind == "lines":
		err = lines(arguments[0])
	case kind == "ticks":
		err = ticks(arguments[0])
	case kind == "web":
		err = web(arguments[0])
	case kind == "sums":
		err = sums(arguments[0])
	case kind == "webhook" && len(arguments) == 3:
		err = webhook(arguments[0], arguments[1], arguments[2])
	case kind == "api" && len(arguments) == 4:
		err = api(arguments[0], arguments[1], arguments[2], arguments[3])
	default:
		err = fmt.Errorf("unknown workload %q, or not all of its arguments", kind)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "workload:", err)
	os.Exit(1)
}

func lines(text string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	for number := range count {
		fmt.Printf("line %d of the log\n", number)
	}
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM)
	<-stopped
	return nil
}

func ticks(text string) error {
	milliseconds, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	for number := 0; ; number++ {
		fmt.Printf("tick %d\n", number)
		time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	}
}
