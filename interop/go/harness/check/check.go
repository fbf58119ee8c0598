// Package check makes tries, prints one line for each kind of try, and remembers whether one failed.
package check

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Patience is how long one try may take. Longer than the clients wait for an answer when they close.
	Patience = 20 * time.Second
	// After so many failures of a kind there are no more tries of it.
	enough = 20
)

// Only skips what does not have this in its name.
var Only string

var passed, failed int

// Bound ends the program as failed when it is not done in time.
func Bound(limit time.Duration) {
	time.AfterFunc(limit, func() {
		fmt.Printf("FAIL  not done within %s\npassed %d, failed %d\n", limit, passed, failed+1)
		os.Exit(1)
	})
}

// Finish says how many kinds passed and ends the program accordingly.
func Finish() {
	fmt.Printf("passed %d, failed %d\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// Once makes one try.
func Once(name string, try func() error) {
	Tries(name, 1, 1, func(int) error { return try() })
}

// Tries makes many tries, some at a time, and reports them in one line, with one more for each kind of failure.
// A try that is not done in time is a failure, and is left alone.
func Tries(name string, tries, parallel int, try func(number int) error) {
	if !strings.Contains(name, Only) {
		return
	}
	start := time.Now()
	failures := map[string]int{}
	bad, tried := 0, 0
	var lock sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for number := range tries {
		slots <- struct{}{}
		lock.Lock()
		hopeless := bad >= enough
		lock.Unlock()
		if hopeless {
			break
		}
		tried++
		all.Go(func() {
			defer func() { <-slots }()
			if err := within(Patience, func() error { return try(number) }); err != nil {
				lock.Lock()
				defer lock.Unlock()
				failures[kind(err)]++
				bad++
			}
		})
	}
	all.Wait()

	verdict := "ok  "
	if bad > 0 {
		verdict = "FAIL"
		failed++
	} else {
		passed++
	}
	if tries > 1 {
		name = fmt.Sprintf("%s: %d of %d", name, tried-bad, tries)
	}
	fmt.Printf("%s  %s (%.1f s)\n", verdict, name, time.Since(start).Seconds())
	for _, text := range slices.Sorted(maps.Keys(failures)) {
		fmt.Printf("        %d times: %.300s\n", failures[text], text)
	}
}

// Note prints what was seen and is not judged.
func Note(format string, values ...any) {
	fmt.Printf("      "+format+"\n", values...)
}

// Want is an error unless the text of err contains the wanted one.
func Want(err error, text string) error {
	if err == nil || !strings.Contains(err.Error(), text) {
		return fmt.Errorf("want an error with %q, got %v", text, err)
	}
	return nil
}

func within(limit time.Duration, try func() error) error {
	done := make(chan error, 1)
	go func() { done <- try() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("not done within %s", limit)
	}
}

var ports = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// kind makes errors of the same kind equal.
func kind(err error) string { return ports.ReplaceAllString(err.Error(), "127.0.0.1:PORT") }
