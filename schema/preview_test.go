package schema_test

import (
	"strings"
	"testing"
)

func TestPreviewSaysWhatReplaceWouldDo(t *testing.T) {
	t.Parallel()
	typ := messageType(t, kitchen(t), "kitchen.v1.Everything")
	original := wire(fromJSON(t, typ, `{"text":"before","flag":true}`), unknown("kept"))
	m, err := typ.Decode(original)
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		` {"text": "after"}`:             `{"text":"after"}`,
		`{}`:                             `{}`,
		`{"flag":true, "text":"before"}`: `{"text":"before","flag":true}`,
	} {
		got, err := m.Preview([]byte(answer))
		if err != nil || string(got) != want {
			t.Errorf("preview of %s: %s %v, want %s", answer, got, err, want)
		}
	}
	for _, bad := range []string{`{"nope":1}`, `[]`, `{"flag":"secret"}`} {
		if _, err := m.Preview([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("preview of %s: %v", bad, err)
		}
	}
	now, err := m.Wire()
	if err != nil || m.Changed() || string(now) != string(original) {
		t.Errorf("a preview changed the message: %v", err)
	}
	if err := m.Replace([]byte(`{"text":"applied"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Preview([]byte(`{"text":"later"}`)); err != nil {
		t.Fatal(err)
	}
	if json, _ := m.JSON(); string(json) != `{"text":"applied"}` {
		t.Errorf("a preview changed what was applied: %s", json)
	}
}
