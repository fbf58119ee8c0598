package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/creack/pty"
	v1 "k8s.io/api/core/v1"
)

// processes is the runtime: containers by id. The set does not change after the start.
type processes struct {
	containers map[string]*container
}

// container is a container's main process.
type container struct {
	folder  string
	logFile string
	stdin   io.WriteCloser // nil unless the pod asks for it
	// The terminal's other end, if it has one.
	terminal *os.File
	stdout   *fanOut
	stderr   *fanOut
	done     chan struct{}
}

func containerID(namespace, pod, container string) string {
	return namespace + "/" + pod + "/" + container
}

// startPods starts every container of the pods. They end with this program, by the end of their network namespace.
func startPods(pods []*v1.Pod, root string) (*processes, error) {
	started := &processes{containers: map[string]*container{}}
	for _, pod := range pods {
		for _, spec := range pod.Spec.Containers {
			id := containerID(pod.Namespace, pod.Name, spec.Name)
			running, err := startContainer(filepath.Join(root, id), spec)
			if err != nil {
				return nil, fmt.Errorf("container %s: %w", id, err)
			}
			started.containers[id] = running
		}
	}
	return started, nil
}

func startContainer(folder string, spec v1.Container) (*container, error) {
	c := &container{folder: filepath.Join(folder, "work"), logFile: filepath.Join(folder, "log", "0.log"), done: make(chan struct{})}
	for _, needed := range []string{c.folder, filepath.Dir(c.logFile)} {
		if err := os.MkdirAll(needed, 0o755); err != nil {
			return nil, err
		}
	}
	file, err := os.Create(c.logFile)
	if err != nil {
		return nil, err
	}
	var lock sync.Mutex
	c.stdout = newFanOut(spoil(&logWriter{lock: &lock, file: file, stream: "stdout"}))
	c.stderr = newFanOut(&logWriter{lock: &lock, file: file, stream: "stderr"})

	argv := append(slices.Clone(spec.Command), spec.Args...)
	command := exec.Command(argv[0], argv[1:]...)
	command.Dir = c.folder
	if spec.TTY {
		err = c.startInTerminal(command)
	} else {
		err = c.startWithPipes(command, spec.Stdin)
	}
	if err != nil {
		return nil, err
	}
	go func() {
		command.Wait()
		close(c.done)
	}()
	return c, nil
}

func (c *container) startInTerminal(command *exec.Cmd) error {
	terminal, err := pty.Start(command)
	if err != nil {
		return err
	}
	c.terminal, c.stdin = terminal, terminal
	go io.Copy(c.stdout, terminal)
	return nil
}

func (c *container) startWithPipes(command *exec.Cmd, withStdin bool) error {
	command.Stdout, command.Stderr = c.stdout, c.stderr
	if withStdin {
		stdin, err := command.StdinPipe()
		if err != nil {
			return err
		}
		c.stdin = stdin
	}
	return command.Start()
}

func (c *container) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// fanOut writes to the log and to whoever is attached. An attached one that fails is left out from then on.
type fanOut struct {
	lock     sync.Mutex
	log      io.Writer
	attached map[io.Writer]struct{}
}

func newFanOut(log io.Writer) *fanOut {
	return &fanOut{log: log, attached: map[io.Writer]struct{}{}}
}

func (f *fanOut) Write(bytes []byte) (int, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	maps.DeleteFunc(f.attached, func(writer io.Writer, _ struct{}) bool {
		_, err := writer.Write(bytes)
		return err != nil
	})
	return f.log.Write(bytes)
}

// attach adds a writer, if there is one, and gives back what removes it.
func (f *fanOut) attach(writer io.Writer) func() {
	if writer == nil {
		return func() {}
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.attached[writer] = struct{}{}
	return func() {
		f.lock.Lock()
		defer f.lock.Unlock()
		delete(f.attached, writer)
	}
}

// logWriter writes lines in the format that the CRI has for logs: time, stream, F for a full line, text.
type logWriter struct {
	lock    *sync.Mutex // of the file, which stdout and stderr share
	file    *os.File
	stream  string
	pending []byte
}

func (w *logWriter) Write(bytes []byte) (int, error) {
	w.pending = append(w.pending, bytes...)
	now := time.Now().Format(time.RFC3339Nano)
	var lines []byte
	for {
		end := slices.Index(w.pending, '\n')
		if end < 0 {
			break
		}
		lines = fmt.Appendf(lines, "%s %s F %s\n", now, w.stream, w.pending[:end])
		w.pending = w.pending[end+1:]
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	if _, err := w.file.Write(lines); err != nil {
		return 0, err
	}
	return len(bytes), nil
}
