package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// A metric of ours in an expression.
var metric = regexp.MustCompile(`konnectivity_network_proxy_(server|agent)_([a-z_]+)`)

// checkMonitoring: alerts and dashboards speak of metrics that there are, and each alert is explained.
func checkMonitoring(p *problems, chart, metrics, operations string) {
	known, operationsText := knownMetrics(p, metrics), read(p, operations)
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(p, filepath.Join(chart, "files/alerts.yaml"))), &rules); err != nil {
		p.add("alerts.yaml: %v", err)
	}
	count := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			count++
			checkExpression(p, "alert "+rule.Alert, rule.Expr, known)
			if !strings.Contains(operationsText, "`"+rule.Alert+"`") {
				p.add("alert %s: %s does not say what it means", rule.Alert, operations)
			}
		}
	}
	if count == 0 {
		p.add("alerts.yaml: there are no alerts")
	}
	files, _ := filepath.Glob(filepath.Join(chart, "files/dashboards/*.json"))
	if len(files) == 0 {
		p.add("there are no dashboards")
	}
	for _, file := range files {
		checkDashboard(p, file, known)
	}
}

func checkDashboard(p *problems, file string, known map[string]bool) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(p, file)), &dashboard); err != nil {
		p.add("%s: %v", file, err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			checkExpression(p, "panel "+panel.Title, grafana.Replace(target.Expr), known)
		}
	}
}

// What Grafana puts in place of its variables.
var grafana = strings.NewReplacer("$__rate_interval", "5m", "$namespace", "kube-system")

func checkExpression(p *problems, name, expression string, known map[string]bool) {
	if _, err := parser.ParseExpr(expression); err != nil {
		p.add("%s: %v in %s", name, err, expression)
	}
	for _, found := range metric.FindAllString(expression, -1) {
		plain := found
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			plain = strings.TrimSuffix(plain, suffix)
		}
		if !known[found] && !known[plain] {
			p.add("%s: there is no metric %s", name, found)
		}
	}
}

// knownMetrics reads the tables of the document that a test makes from the programs.
func knownMetrics(p *problems, path string) map[string]bool {
	known := map[string]bool{}
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\|")
	text := read(p, path)
	for _, program := range []string{"server", "agent"} {
		_, section, _ := strings.Cut(text, "<!-- begin proxy-"+program+" -->")
		section, _, _ = strings.Cut(section, "<!-- end proxy-"+program+" -->")
		for _, line := range strings.Split(section, "\n") {
			if name := row.FindStringSubmatch(line); name != nil {
				known["konnectivity_network_proxy_"+program+"_"+name[1]] = true
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
