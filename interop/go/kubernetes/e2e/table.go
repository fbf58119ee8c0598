package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// table has a column for each pair of front end and tunnel.
type table struct {
	columns []*column
}

type column struct {
	front, peer string
	names       []string
	outcomes    map[string]outcome
}

func (t *table) column(front, peer string) *column {
	added := &column{front: front, peer: peer, outcomes: map[string]outcome{}}
	t.columns = append(t.columns, added)
	return added
}

// add keeps what a check came to and prints it.
func (c *column) add(name string, o outcome) {
	c.names = append(c.names, name)
	c.outcomes[name] = o
	verdict, note := "ok  ", ""
	if o.err != nil {
		verdict = "FAIL"
	}
	if o.note != "" {
		note = ", " + o.note
	}
	fmt.Printf("%s  %s (%.2f s%s)\n", verdict, name, o.time.Seconds(), note)
	if o.err != nil {
		fmt.Printf("        %.1000s\n", strings.ReplaceAll(strings.TrimSpace(o.err.Error()), "\n", "\n        "))
	}
}

// good is false when our own tunnel failed in something. What fails with the reference is on record only.
func (t *table) good() bool {
	for _, column := range t.columns {
		if column.peer == ours && column.failures() > 0 {
			return false
		}
	}
	return true
}

func (c *column) failures() int {
	failed := 0
	for _, outcome := range c.outcomes {
		if outcome.err != nil {
			failed++
		}
	}
	return failed
}

// print writes it with its sums.
func (t *table) print(to io.Writer) {
	fmt.Fprintf(to, "\n%s", t.markdown())
	for _, column := range t.columns {
		fmt.Fprintf(to, "%s %s: passed %d, failed %d\n", column.front, column.peer, len(column.outcomes)-column.failures(), column.failures())
	}
}

// markdown has a row for each check: seconds and what was measured, or FAIL.
func (t *table) markdown() string {
	var names []string
	for _, column := range t.columns {
		for _, name := range column.names {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	heads, line := "| check |", "| --- |"
	for _, column := range t.columns {
		heads += fmt.Sprintf(" %s, %s |", column.front, column.peer)
		line += " --- |"
	}
	text := heads + "\n" + line + "\n"
	for _, name := range names {
		row := "| " + name + " |"
		for _, column := range t.columns {
			row += " " + column.cell(name) + " |"
		}
		text += row + "\n"
	}
	return text
}

func (c *column) cell(name string) string {
	outcome, ok := c.outcomes[name]
	if !ok {
		return ""
	}
	text := fmt.Sprintf("%.2f s", outcome.time.Seconds())
	if outcome.err != nil {
		text = "**FAIL** " + text
	}
	if outcome.note != "" {
		text += "; " + outcome.note
	}
	return text
}
