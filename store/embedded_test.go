package store_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/store/storetest"
)

func openEmbedded(t testing.TB, path string) *store.Embedded {
	t.Helper()
	s, err := store.OpenEmbedded(store.EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestEmbeddedConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB) storetest.Backend {
		path := filepath.Join(t.TempDir(), "store.db")
		return storetest.Backend{
			Exclusive: true,
			Open: func(t testing.TB, l storetest.Limits) store.Store {
				s, err := store.OpenEmbedded(store.EmbeddedOptions{
					Path: path, MaxRevisions: l.MaxRevisions, MaxLogBytes: l.MaxLogBytes,
				})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
		}
	})
}

func TestEmbeddedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "dir", "store.db")
	s := openEmbedded(t, path)
	mode := func(path string) os.FileMode {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Mode().Perm()
	}
	if got := mode(path); got != 0o600 {
		t.Fatalf("mode of the file is %v", got)
	}
	if got := mode(filepath.Dir(path)); got != 0o700 {
		t.Fatalf("mode of the directory is %v", got)
	}
	_ = s.Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openEmbedded(t, path)
	if got := mode(path); got != 0o600 {
		t.Fatalf("mode of the file that was readable by all is %v", got)
	}
}

func TestEmbeddedErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	held := filepath.Join(dir, "held.db")
	openEmbedded(t, held)
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no store ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, want string }{
		"held by another process":    {held, "another process holds the file"},
		"no path":                    {"", "no path"},
		"a directory":                {dir, dir},
		"a file where a dir belongs": {filepath.Join(held, "store.db"), "not a directory"},
		"not a store":                {garbage, "not a store file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := store.OpenEmbedded(store.EmbeddedOptions{Path: tt.path, LockTimeout: 100 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Fatalf("took %v", d)
			}
		})
	}
}

// commitUntilKilled is the child process of TestEmbeddedSurvivesKill.
func commitUntilKilled(path string) {
	s, err := store.OpenEmbedded(store.EmbeddedOptions{Path: path, MaxRevisions: 10})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	h, err := s.Head(noContext)
	for base := h.Revision; err == nil; base++ {
		n := strconv.FormatUint(base+1, 10)
		items := []store.Item{{Kind: "n", ID: "last", Value: []byte(n)}, {Kind: "n", ID: n, Value: []byte(n)}}
		if _, err = s.Commit(noContext, store.Commit{Base: base, Items: items}); err == nil {
			fmt.Println(n)
		}
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

func TestEmbeddedSurvivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acknowledged uint64
		killAfter := 20 + 13*round
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if acknowledged, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatalf("child said %q", lines.Text())
			}
			if n == killAfter {
				_ = cmd.Process.Kill() // and go on reading what it still acknowledged
			}
		}
		_ = cmd.Wait()

		s := openEmbedded(t, path)
		d, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Revision < acknowledged || d.Revision > acknowledged+1 {
			t.Fatalf("round %d: revision %d after %d acknowledged", round, d.Revision, acknowledged)
		}
		have := make(map[string]string)
		for _, it := range d.Items {
			have[it.ID] = string(it.Value)
		}
		if got := have["last"]; got != strconv.FormatUint(d.Revision, 10) {
			t.Fatalf("round %d: last is %s at revision %d", round, got, d.Revision)
		}
		for n := uint64(1); n <= d.Revision; n++ {
			if _, ok := have[strconv.FormatUint(n, 10)]; !ok {
				t.Fatalf("round %d: commit %d is lost", round, n)
			}
		}
		_ = s.Close()
	}
}
