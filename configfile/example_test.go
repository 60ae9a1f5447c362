package configfile_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/execgate/execgate/configfile"
)

func ExampleParse() {
	doc, err := configfile.Parse([]byte(`
kind: Target
name: guard
webhook: {url: "https://hooks.example.com/"}
timeout: 10s
---
{"kind": "Execution", "condition": {"request": {"all": true}}, "targets": ["guard"]}
`), configfile.ParseOptions{File: "rules.yaml"})
	fmt.Println(doc.Targets[0].Name, doc.Executions[0].Condition, err)

	_, err = configfile.Parse([]byte("kind: Target\nname: guard\nwebhook: {url: \"https://hooks.example.com/\"}\ntimeuot: 10s\n"), configfile.ParseOptions{File: "rules.yaml"})
	fmt.Println(err)
	// Output:
	// guard request <nil>
	// rules.yaml:1: Target guard: timeout: missing; write how long an answer may take, like timeout: 10s
	// rules.yaml:4: Target guard: timeuot: unknown key; did you mean timeout?
}

func TestTheExamplesOfTheDocumentationParse(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../examples/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/configuration-as-code.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("the page has no example")
	}
	for name, text := range map[string]string{"examples/rules.yaml": string(text), "the page": block} {
		doc, err := configfile.Parse([]byte(text), configfile.ParseOptions{File: name})
		if err != nil || len(doc.Targets) == 0 || len(doc.Executions) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
