package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// program is a process that runs beside the checks.
type program struct {
	name    string
	command *exec.Cmd
	done    chan struct{}
}

// programs are stopped in the opposite order of their start.
type programs struct {
	folder  string // of their logs
	running []*program
}

// start runs a program in a network namespace, or in this one if none is named.
func (p *programs) start(name, namespace string, argv ...string) (*program, error) {
	log, err := os.OpenFile(filepath.Join(p.folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if namespace != "" {
		argv = append([]string{"ip", "netns", "exec", namespace}, argv...)
	}
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdout, command.Stderr = log, log
	// A group of its own: Ctrl-C is for this program, which stops the others in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	started := &program{name: name, command: command, done: make(chan struct{})}
	go func() {
		command.Wait()
		close(started.done)
	}()
	p.running = append(p.running, started)
	return started, nil
}

// stopAll ends everything that was started.
func (p *programs) stopAll() {
	for _, each := range slices.Backward(p.running) {
		each.stop(syscall.SIGTERM)
	}
	p.running = nil
}

// stop sends a signal and waits for the end, of the whole group, for which a SIGKILL helps out after a while.
func (p *program) stop(signal syscall.Signal) {
	if p.alive() != nil {
		return
	}
	group := -p.command.Process.Pid
	syscall.Kill(group, signal)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	// A kubelet leaves its containers behind.
	syscall.Kill(group, syscall.SIGKILL)
	<-p.done
}

// signal sends one and does not wait.
func (p *program) signal(signal syscall.Signal) { syscall.Kill(-p.command.Process.Pid, signal) }

func (p *program) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v", p.name, p.command.ProcessState)
	default:
		return nil
	}
}

// until tries until there is no error any more, or the time is over, or one of the programs has ended.
func until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error, needed ...*program) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		for _, each := range needed {
			if dead := each.alive(); dead != nil {
				return fmt.Errorf("%s: %w", what, dead)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w, the last answer: %w", what, ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
