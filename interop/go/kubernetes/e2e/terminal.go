package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
)

// terminal uses a shell as a person does, and makes the window larger.
func terminal(ctx context.Context, c *cluster) (string, error) {
	kubectl := c.command(ctx, webSocket, "exec", "-it", "web", "-c", "web", "--", "sh")
	window, err := pty.StartWithSize(kubectl, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		return "", err
	}
	defer window.Close()
	var seen screen
	go seen.read(window)

	err = sizeIs(ctx, c, window, &seen, "24 80")
	if err == nil {
		err = errors.Join(pty.Setsize(window, &pty.Winsize{Rows: 50, Cols: 132}), sizeIs(ctx, c, window, &seen, "50 132"))
	}
	if err != nil {
		kubectl.Process.Kill()
		kubectl.Wait()
		return "", fmt.Errorf("%w; on the screen: %q", err, seen.text())
	}
	fmt.Fprintln(window, "exit 5")
	var exit *exec.ExitError
	if err := kubectl.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		return "", fmt.Errorf("want exit code 5, got %v; on the screen: %q", err, seen.text())
	}
	return "", nil
}

// sizeIs asks until the shell's terminal has a size: kubectl sends it beside the input.
func sizeIs(ctx context.Context, c *cluster, window *os.File, seen *screen, size string) error {
	return until(ctx, c.limit(20*time.Second), "the terminal's size "+size, func(context.Context) error {
		if strings.Contains(seen.text(), size) {
			return nil
		}
		if _, err := fmt.Fprintln(window, "stty size"); err != nil {
			return err
		}
		return errors.New("another size")
	})
}

// screen is all that a terminal has shown.
type screen struct {
	lock  sync.Mutex
	shown []byte
}

func (s *screen) read(window *os.File) {
	chunk := make([]byte, 4096)
	for {
		count, err := window.Read(chunk)
		s.lock.Lock()
		s.shown = append(s.shown, chunk[:count]...)
		s.lock.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *screen) text() string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return string(s.shown)
}
