package queue_test

import (
	"context"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/execgate/execgate/internal/testkit"
)

// quietRedis keeps what go-redis says about servers that were killed on purpose
// out of the output.
type quietRedis struct{}

func (quietRedis) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(quietRedis{})
	if spec := os.Getenv(childEnv); spec != "" {
		crashChild(spec)
		return
	}
	// The thread that starts redis-server for the tests never ends.
	testkit.Main(m, goleak.IgnoreAnyFunction("github.com/execgate/execgate/internal/testkit.startWithParent.func1.1"))
}
