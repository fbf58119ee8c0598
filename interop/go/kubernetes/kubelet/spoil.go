package main

import "io"

// spoil changes a byte of whatever goes through streams and into logs, so that whoever compares them must notice.
func spoil(writer io.Writer) io.Writer {
	if !*spoils || writer == nil {
		return writer
	}
	return spoiler{writer}
}

type spoiler struct{ to io.Writer }

// Write changes the first byte of each chunk. What it is given stays as it is.
func (s spoiler) Write(bytes []byte) (int, error) {
	if len(bytes) == 0 {
		return s.to.Write(bytes)
	}
	changed := append([]byte{bytes[0] + 1}, bytes[1:]...)
	return s.to.Write(changed)
}
