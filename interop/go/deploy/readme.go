package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	begin = "<!-- begin values -->\n"
	end   = "<!-- end values -->"
)

// schema is what is used of a JSON schema.
type schema struct {
	Description string
	Type        any
	Enum        []string
	Properties  map[string]schema
	Additional  *bool `json:"additionalProperties"`
}

// checkReadme: the chart's README lists every value with the schema's words and the default of values.yaml.
func checkReadme(p *problems, chart string, write bool) {
	var root schema
	if err := json.Unmarshal([]byte(read(p, filepath.Join(chart, "values.schema.json"))), &root); err != nil {
		p.add("values.schema.json: %v", err)
		return
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(p, filepath.Join(chart, "values.yaml"))), &values); err != nil {
		p.add("values.yaml: %v", err)
		return
	}
	table := "\n| Value | Default | What it does |\n|---|---|---|\n" + strings.Join(rows(p, "", root, values), "") + "\n"
	path := filepath.Join(chart, "README.md")
	text := read(p, path)
	before, rest, found := strings.Cut(text, begin)
	section, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		p.add("%s does not say where the values are listed", path)
		return
	}
	if write {
		if err := os.WriteFile(path, []byte(before+begin+table+end+after), 0o644); err != nil {
			p.add("%v", err)
		}
	} else if section != table {
		p.add("%s does not list the values as they are; scripts/deploy.sh --write writes it anew", path)
	}
}

func rows(p *problems, prefix string, schema schema, values map[string]any) (all []string) {
	for name := range values {
		if _, described := schema.Properties[name]; !described {
			p.add("values.yaml: %s%s is not in the schema", prefix, name)
		}
	}
	if len(schema.Properties) > 0 && (schema.Additional == nil || *schema.Additional) {
		p.add("values.schema.json: %s lets unknown values through", strings.TrimSuffix(prefix, "."))
	}
	for _, name := range order(schema.Properties) {
		property, path := schema.Properties[name], prefix+name
		value, there := values[name]
		inner, isMap := value.(map[string]any)
		if !there {
			p.add("values.yaml: %s is missing", path)
		}
		if len(property.Properties) > 0 {
			if !isMap {
				p.add("values.yaml: %s is no map", path)
			}
			all = append(all, rows(p, path+".", property, inner)...)
			continue
		}
		if property.Description == "" {
			p.add("values.schema.json: %s has no description", path)
		}
		shown, _ := json.Marshal(value)
		all = append(all, fmt.Sprintf("| `%s` | `%s` | %s |\n", path, shown, property.Description))
	}
	return all
}

func order(properties map[string]schema) (names []string) {
	for name := range properties {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
