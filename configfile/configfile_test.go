package configfile_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/configfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file beside the input.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	name += ".golden"
	if *update {
		if err := os.WriteFile(name, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	yaml, _ := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	json, _ := filepath.Glob(filepath.Join("testdata", dir, "*.json"))
	if len(yaml)+len(json) == 0 {
		t.Fatal("no files")
	}
	return append(yaml, json...)
}

func TestWhatIsParsedPrintsInOneOrderAndParsesAgain(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, "parse") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := configfile.Parse(text, configfile.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			printed := configfile.Print(doc)
			golden(t, name, printed)
			again, err := configfile.Parse(printed, configfile.ParseOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if twice := configfile.Print(again); !bytes.Equal(twice, printed) {
				t.Errorf("printed again:\n%s", twice)
			}
		})
	}
}

func TestEveryFaultIsFoundWithItsLine(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, "faults") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = configfile.Parse(text, configfile.ParseOptions{File: filepath.Base(name)})
			var faults configfile.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("a %T: %v", err, err)
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Error("a fault repeats a secret")
			}
			golden(t, name, []byte(err.Error()+"\n"))
		})
	}
}

func TestBytesThatAreNoText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"kind: \xff", "kind: \x00", "\xff\xfek\x00"} {
		doc, err := configfile.Parse([]byte(text), configfile.ParseOptions{})
		if err == nil || !doc.Truncated {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFaultsThatAreFoundLaterKnowTheLine(t *testing.T) {
	t.Parallel()
	doc, err := configfile.Parse([]byte("kind: Target\nname: n\nwebhook:\n  url: ftp://a\ntimeout: 10s\npolicy:\n  headers:\n    A: b\n"), configfile.ParseOptions{File: "f.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"webhook.url":         "f.yaml:4: Target n: webhook.url: bad; mend it",
		"policy.headers[A]":   "f.yaml:7: Target n: policy.headers[A]: bad; mend it",
		"policy.breaker.what": "f.yaml:6: Target n: policy.breaker.what: bad; mend it",
		"":                    "f.yaml:1: Target n: bad; mend it",
	} {
		if got := doc.Targets[0].Fault(path, "bad", "mend it").String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// keys are the files of a test.
func keys(name string) ([]byte, error) {
	switch name {
	case "key.txt":
		return []byte("s3cret \"key\" é\n"), nil
	case "two lines":
		return []byte("a\nb\n"), nil
	case "empty":
		return nil, nil
	}
	return nil, errors.New("no such file")
}

func TestSigningKeysAreReadFromFiles(t *testing.T) {
	t.Parallel()
	const head = "kind: Target\nname: n\nwebhook: {url: https://a.example}\ntimeout: 10s\n"
	for file, want := range map[string]string{
		"key.txt": "", "two lines": "more than one line", "empty": "is empty", "missing": "no such file",
	} {
		doc, err := configfile.Parse([]byte(head+"signing_key_file: "+file), configfile.ParseOptions{ReadFile: keys})
		switch {
		case want == "" && (err != nil || doc.Targets[0].SigningKey != `s3cret "key" é`):
			t.Errorf("%s: %v", file, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestInline(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want, fault string }{
		{"kind: Target\n# é signing_key_file: x\nsigning_key_file: key.txt # the key\nname: a\n", "kind: Target\n# é signing_key_file: x\nsigning_key: \"s3cret \\\"key\\\" é\" # the key\nname: a\n", ""},
		{"kind: Target\nname: é\n---\n- {name: é, \"signing_key_file\": \"key.txt\", b: 1}\n- {signing_key_file: 'key.txt'}", "kind: Target\nname: é\n---\n- {name: é, \"signing_key\": \"s3cret \\\"key\\\" é\", b: 1}\n- {signing_key: \"s3cret \\\"key\\\" é\"}", ""},
		{"\uFEFFsigning_key_file: key.txt", "\uFEFFsigning_key: \"s3cret \\\"key\\\" é\"", ""},
		{"name: none", "name: none", ""},
		{"signing_key_file: [", "signing_key_file: [", ""},
		{"a: {signing_key_file: key.txt}", "a: {signing_key_file: key.txt}", ""},
		{"a: 1\nsigning_key_file: >\n  key.txt\n", "", "f.yaml:2: signing_key_file: key.txt\n: no such file"},
		{"a: 1\nsigning_key_file: missing", "", "f.yaml:2: signing_key_file: missing: no such file"},
		{"signing_key_file:\n  \"key\\x2Etxt\"", "", "f.yaml:2: signing_key_file: not on one line"},
	} {
		got, err := configfile.Inline([]byte(c.text), "f.yaml", keys)
		switch {
		case c.fault == "" && (err != nil || string(got) != c.want):
			t.Errorf("%q: %q, %v", c.text, got, err)
		case c.fault != "" && (err == nil || !strings.HasPrefix(err.Error(), c.fault)):
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
	}
}

func FuzzParsePrint(f *testing.F) {
	for _, dir := range []string{"parse", "faults"} {
		names, _ := filepath.Glob(filepath.Join("testdata", dir, "*[nl]"))
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil {
				f.Add(text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := configfile.Parse(text, configfile.ParseOptions{})
		if err != nil {
			return
		}
		printed := configfile.Print(doc)
		again, err := configfile.Parse(printed, configfile.ParseOptions{})
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if !bytes.Equal(configfile.Print(again), printed) {
			t.Fatalf("not stable:\n%s", printed)
		}
		if len(again.Targets) != len(doc.Targets) || len(again.Executions) != len(doc.Executions) {
			t.Fatalf("items were lost:\n%s", printed)
		}
		for i, want := range sorted(doc) {
			got := again.Targets[i]
			if got.Name != want.Name || got.URL != want.URL || got.Timeout != want.Timeout || got.SigningKey != want.SigningKey ||
				got.PayloadType != want.PayloadType || len(got.PublicKeys) != len(want.PublicKeys) {
				t.Fatalf("%+v, want %+v", got, want)
			}
			if want.Policy != nil && got.Policy != nil && !proto.Equal(got.Policy, want.Policy) && !strings.Contains(string(printed), "breaker") {
				t.Fatalf("%v, want %v", got.Policy, want.Policy)
			}
			for j := range want.PublicKeys {
				if got.PublicKeys[j].PEM != want.PublicKeys[j].PEM || got.PublicKeys[j].ID != want.PublicKeys[j].ID {
					t.Fatalf("%+v, want %+v", got, want)
				}
			}
		}
	})
}

// sorted are the targets in the order in which they are printed.
func sorted(doc *configfile.Document) []*configfile.Target {
	order, err := configfile.Parse(configfile.Print(doc), configfile.ParseOptions{})
	if err != nil {
		return nil
	}
	var out []*configfile.Target
	used := make(map[*configfile.Target]bool)
	for _, o := range order.Targets {
		for _, t := range doc.Targets {
			if t.Name == o.Name && !used[t] {
				used[t] = true
				out = append(out, t)
				break
			}
		}
	}
	return out
}

// large is a document of n targets and n executions.
func large(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "---\nkind: Target\nname: target-%05d\nwebhook:\n  url: https://hooks.example.com/%d\ntimeout: 10s\n", i, i)
		fmt.Fprintf(&b, "---\nkind: Execution\ncondition: request/pkg.Service/Method%05d\ntargets:\n  - target-%05d\n", i, i)
	}
	return b.Bytes()
}

func BenchmarkParse10000(b *testing.B) {
	text := large(10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := configfile.Parse(text, configfile.ParseOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrint10000(b *testing.B) {
	doc, err := configfile.Parse(large(10_000), configfile.ParseOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		configfile.Print(doc)
	}
}
