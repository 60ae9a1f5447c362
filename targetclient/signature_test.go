package targetclient_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// readVectors returns the blocks of a file in testdata: key to values.
func readVectors(t *testing.T, name string) []map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var out []map[string][]string
	for block := range strings.SplitSeq(string(data), "\n\n") {
		fields := map[string][]string{}
		for line := range strings.SplitSeq(block, "\n") {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
				fields[key] = append(fields[key], strings.TrimPrefix(value, " "))
			}
		}
		if len(fields) > 0 {
			out = append(out, fields)
		}
	}
	return out
}

func unix(t *testing.T, s string) time.Time {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(n, 0)
}

func TestSignatureVectors(t *testing.T) {
	t.Parallel()
	vectors := readVectors(t, "signature_sign.txt")
	if len(vectors) < 5 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, v := range vectors {
		at := unix(t, v["t"][0])
		body := []byte(strings.ReplaceAll(v["body"][0], `\n`, "\n"))
		want := v["header"][0]
		// The fraction of a second does not count.
		if got := targetclient.SignatureHeader(v["key"], at.Add(999*time.Millisecond), body); got != want {
			t.Errorf("SignatureHeader = %s\nwant %s", got, want)
		}
		for i, key := range v["key"] {
			if got := targetclient.Sign(key, at, body); got != strings.Split(want, ",v1=")[i+1] {
				t.Errorf("Sign with key %d = %s, want %s", i, got, want)
			}
			if err := targetclient.Verify(want, key, body, at, 0); err != nil {
				t.Errorf("Verify with key %d: %v", i, err)
			}
			if err := targetclient.Verify(want, key+" ", body, at, 0); !errors.Is(err, targetclient.ErrNoValidSignature) {
				t.Errorf("Verify with another key: %v", err)
			}
			if err := targetclient.Verify(want, key, append(slices.Clone(body), ' '), at, 0); !errors.Is(err, targetclient.ErrNoValidSignature) {
				t.Errorf("Verify of another body: %v", err)
			}
		}
	}
	if got := targetclient.SignatureHeader(nil, time.Unix(1, 0), nil); got != "" {
		t.Errorf("without keys: %q, want nothing", got)
	}
}

func TestVerifyVectors(t *testing.T) {
	t.Parallel()
	results := map[string]error{
		"ok": nil, "not signed": targetclient.ErrNotSigned, "invalid header": targetclient.ErrInvalidHeader,
		"too old": targetclient.ErrSignatureTooOld, "no valid signature": targetclient.ErrNoValidSignature,
	}
	for _, v := range readVectors(t, "signature_verify.txt") {
		want, known := results[v["result"][0]]
		if !known {
			t.Fatalf("result %q", v["result"][0])
		}
		err := targetclient.Verify(v["header"][0], "secret", []byte(`{"fullMethod":"/x.Y/Z"}`), unix(t, v["now"][0]), targetclient.DefaultTolerance)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", v["name"][0], err, want)
		}
	}
}

func TestToleranceCountsFractions(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 0)
	h := targetclient.SignatureHeader([]string{"k"}, at, nil)
	if err := targetclient.Verify(h, "k", nil, at.Add(300*time.Second), 300*time.Second); err != nil {
		t.Errorf("300 s: %v", err)
	}
	if err := targetclient.Verify(h, "k", nil, at.Add(300*time.Second+1), 300*time.Second); !errors.Is(err, targetclient.ErrSignatureTooOld) {
		t.Errorf("300 s and a nanosecond: %v", err)
	}
}

// Whatever a header looks like, it passes only if it holds the signature of this
// body by this key, for the time that it names.
func FuzzVerify(f *testing.F) {
	at := time.Unix(1700000000, 0)
	body := []byte(`{"a":1}`)
	f.Add(targetclient.SignatureHeader([]string{"x", "key"}, at, body))
	f.Add("t=1700000000,v1=00,v0==")
	f.Add("v1=" + targetclient.Sign("key", at, body) + ",t=1,t=1700000000")
	f.Add(",")
	f.Fuzz(func(t *testing.T, header string) {
		if targetclient.Verify(header, "key", body, at, time.Hour) != nil {
			return
		}
		for part := range strings.SplitSeq(header, ",") {
			if unixText, ok := strings.CutPrefix(part, "t="); ok {
				signed := targetclient.Sign("key", unix(t, unixText), body)
				if strings.Contains(strings.ToLower(header), "v1="+signed) {
					return
				}
			}
		}
		t.Fatalf("%q passed without the signature", header)
	})
}
