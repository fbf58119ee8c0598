package main

import (
	"fmt"
	"os"
	"strings"
)

// document is where the table is kept: a part of a file, between two lines that name it.
type document struct {
	file, part, madeBy string
}

// write puts the table into the document, in the place of the one before.
func (d *document) write(t *table) error {
	if d.file == "" {
		return nil
	}
	text, err := os.ReadFile(d.file)
	if err != nil {
		return err
	}
	changed, err := d.replace(string(text), t)
	if err != nil {
		return err
	}
	return os.WriteFile(d.file, []byte(changed), 0o644)
}

func (d *document) replace(text string, t *table) (string, error) {
	begin, end := fmt.Sprintf("<!-- begin %s -->\n", d.part), fmt.Sprintf("<!-- end %s -->\n", d.part)
	before, rest, begun := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return "", fmt.Errorf("%s has no lines %q and %q with a table between them", d.file, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + d.madeBy + "\n\n" + t.markdown() + end + after, nil
}
