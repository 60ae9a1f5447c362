package queue_test

import (
	"path/filepath"
	"testing"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
)

func openEmbedded(t testing.TB, path string, s queuetest.Setup) *queue.Embedded {
	t.Helper()
	e, err := queue.OpenEmbedded(queue.EmbeddedOptions{Path: path, Limits: s.Limits, Sealer: s.Sealer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, func(t *testing.T) queuetest.Place {
		path := filepath.Join(t.TempDir(), "queue.db")
		return queuetest.Place{Open: func(t *testing.T, s queuetest.Setup) queue.Backend { return openEmbedded(t, path, s) }}
	})
}
