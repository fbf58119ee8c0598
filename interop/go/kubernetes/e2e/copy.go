package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// copyBothWays copies a folder with a large file and small ones to the pod, and back.
func copyBothWays(ctx context.Context, c *cluster) (string, error) {
	folder := filepath.Join(c.folder, "cp")
	defer os.RemoveAll(folder)
	here, there, back := filepath.Join(folder, "here"), filepath.Join(folder, "there"), filepath.Join(folder, "back")
	for _, needed := range []string{here, folder} {
		if err := os.MkdirAll(needed, 0o755); err != nil {
			return "", err
		}
	}
	if err := fill(filepath.Join(here, "large"), c.size(20_000_000, 2_000_000)); err != nil {
		return "", err
	}
	for number := range 20 {
		if err := fill(filepath.Join(here, fmt.Sprintf("small-%d", number)), 100*number); err != nil {
			return "", err
		}
	}
	if _, err := c.succeed(ctx, webSocket, nil, "cp", here, "web:"+there, "-c", "web"); err != nil {
		return "", err
	}
	if _, err := c.succeed(ctx, webSocket, nil, "cp", "web:"+there, back, "-c", "web"); err != nil {
		return "", err
	}
	wanted, err := contents(here)
	if err != nil {
		return "", err
	}
	for _, copied := range []string{there, back} {
		got, err := contents(copied)
		if err != nil {
			return "", err
		}
		if err := want(copied, wanted, got); err != nil {
			return "", err
		}
	}
	return "", nil
}

func fill(file string, size int) error {
	bytes := make([]byte, size)
	rand.Read(bytes)
	return os.WriteFile(file, bytes, 0o644)
}

// contents names the files of a folder with their sums.
func contents(folder string) (string, error) {
	text := ""
	err := fs.WalkDir(os.DirFS(folder), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		bytes, err := os.ReadFile(filepath.Join(folder, path))
		text += fmt.Sprintf("%x %s\n", sha256.Sum256(bytes), path)
		return err
	})
	return text, err
}
