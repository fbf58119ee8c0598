package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

const family = "konnectivity_network_proxy_"

// Labels that Prometheus adds when it reads a pod, and the one of histograms' buckets.
var everywhere = []string{"namespace", "pod", "service", "node", "le"}

var (
	mention   = regexp.MustCompile(`\$labels\.([a-z_]+)`)
	explained = regexp.MustCompile("(?m)^\\| `(Konnectivity[A-Za-z]+)` \\| [^|]+ \\| [^|]+ \\|$")
)

// checkMonitoring: alerts and dashboards speak of metrics and labels that there are, and each alert is explained.
func checkMonitoring(p *problems, chart, metrics, operations string) {
	known := knownMetrics(p, metrics)
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(p, filepath.Join(chart, "files/alerts.yaml"))), &rules); err != nil {
		p.add("alerts.yaml: %v", err)
	}
	// With what it means and what to do.
	documented := map[string]bool{}
	for _, row := range explained.FindAllStringSubmatch(read(p, operations), -1) {
		documented[row[1]] = true
	}
	there := map[string]bool{}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			name := "alert " + rule.Alert
			labels := checkExpression(p, name, rule.Expr, known)
			for _, found := range mention.FindAllStringSubmatch(rule.Annotations["summary"], -1) {
				if !labels[found[1]] {
					p.add("%s: its summary speaks of the label %s, which nothing in its expression has", name, found[1])
				}
			}
			if !documented[rule.Alert] {
				p.add("%s: %s does not say what it means and what to do", name, operations)
			}
			there[rule.Alert] = true
		}
	}
	for name := range documented {
		if !there[name] {
			p.add("%s explains %s, and there is no such alert", operations, name)
		}
	}
	files, _ := filepath.Glob(filepath.Join(chart, "files/dashboards/*.json"))
	if len(there) == 0 || len(files) == 0 {
		p.add("there are no alerts, or no dashboards")
	}
	for _, file := range files {
		checkDashboard(p, file, known)
	}
}

func checkDashboard(p *problems, file string, known metrics) {
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(p, file)), &dashboard); err != nil {
		p.add("%s: %v", file, err)
	}
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] {
			p.add("panel %s: its id is there twice", panel.Title)
		}
		ids[panel.ID] = true
		for _, target := range panel.Targets {
			checkExpression(p, "panel "+panel.Title, grafana.Replace(target.Expr), known)
		}
	}
}

// What Grafana puts in place of its variables.
var grafana = strings.NewReplacer("$__rate_interval", "5m", "$namespace", "kube-system")

// checkExpression gives the labels that any metric in the expression may have.
func checkExpression(p *problems, name, expression string, known metrics) map[string]bool {
	labels := map[string]bool{}
	for _, label := range everywhere {
		labels[label] = true
	}
	parsed, err := parser.ParseExpr(expression)
	if err != nil {
		p.add("%s: %v in %s", name, err, expression)
		return labels
	}
	var grouped []string
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			own, found := known.labels(node.Name)
			if !found && strings.HasPrefix(node.Name, family) {
				p.add("%s: there is no metric %s", name, node.Name)
			}
			for _, matcher := range node.LabelMatchers {
				if found && !own[matcher.Name] && !slices.Contains(everywhere, matcher.Name) && matcher.Name != "__name__" {
					p.add("%s: %s has no label %s", name, node.Name, matcher.Name)
				}
			}
			for label := range own {
				labels[label] = true
			}
		case *parser.AggregateExpr:
			grouped = append(grouped, node.Grouping...)
		}
		return nil
	})
	for _, label := range grouped {
		if !labels[label] {
			p.add("%s: no metric in it has the label %s", name, label)
		}
	}
	return labels
}

// metrics are the labels of each metric.
type metrics map[string]map[string]bool

// labels of a metric, or of the histogram that a series belongs to.
func (m metrics) labels(name string) (map[string]bool, bool) {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		if labels, found := m[strings.TrimSuffix(name, suffix)]; found {
			return labels, true
		}
	}
	return nil, false
}

// knownMetrics reads the tables of the document that a test makes from the programs.
func knownMetrics(p *problems, path string) metrics {
	known := metrics{}
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\| [a-z]+ \\| ([^|]*) \\|")
	text := read(p, path)
	for _, program := range []string{"server", "agent"} {
		_, section, _ := strings.Cut(text, "<!-- begin proxy-"+program+" -->")
		section, _, _ = strings.Cut(section, "<!-- end proxy-"+program+" -->")
		for _, line := range strings.Split(section, "\n") {
			if found := row.FindStringSubmatch(line); found != nil {
				labels := map[string]bool{}
				for _, label := range strings.Split(found[2], ", ") {
					labels[strings.Trim(label, "`")] = true
				}
				known[family+program+"_"+found[1]] = labels
			}
		}
	}
	if len(known) == 0 {
		p.add("%s lists no metrics", path)
	}
	return known
}

func read(p *problems, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		p.add("%v", err)
	}
	return string(text)
}
