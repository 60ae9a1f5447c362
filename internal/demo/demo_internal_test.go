package demo

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

func TestATakenPortIsReplaced(t *testing.T) {
	t.Parallel()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := ln.Addr().String()
	if got := freeAddr(t.Context(), taken, false); got != "127.0.0.1:0" {
		t.Errorf("%s is taken, and %s was chosen", taken, got)
	}
	_ = ln.Close()
	if got := freeAddr(t.Context(), taken, false); got != taken {
		t.Errorf("%s is free, and %s was chosen", taken, got)
	}
	if got := freeAddr(t.Context(), taken, true); got != "127.0.0.1:0" {
		t.Errorf("a free port was wanted, and %s was chosen", got)
	}
}

func TestSumOfSeries(t *testing.T) {
	t.Parallel()
	m := metricSet{
		`a{x="1",y="/p.S/M"}`: 1, `a{x="1",y="/p.S/MM"}`: 2, `a{x="2",y="/p.S/M"}`: 4, `a`: 8, `aa{x="1"}`: 16,
	}
	for want, labels := range map[float64][]string{
		15: nil,
		3:  {`x="1"`},
		5:  {`y="/p.S/M"`},
		1:  {`y="/p.S/M"`, `x="1"`},
		0:  {`x="3"`},
	} {
		if got := m.sum("a", labels...); got != want {
			t.Errorf("sum of %q is %v, want %v", labels, got, want)
		}
	}
}

func TestPrinterIsPlainWithoutATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newPrinter(&out)
	p.title("Title")
	p.show("label", newUser("ada"))
	if got := out.String(); !strings.HasPrefix(got, "Title\n   label          {\"username\":\"ada\",") {
		t.Errorf("printed %q", got)
	}
}
