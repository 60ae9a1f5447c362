package store_test

import (
	"testing"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

func TestRedisClientIsOfTheSameRedis(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{TLS: true, Password: "secret"})
	client, err := store.NewRedisClient(store.RedisOptions{URL: server.URL, CAFile: server.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	if _, err := store.NewRedisClient(store.RedisOptions{}); err == nil {
		t.Error("no address, and no error")
	}
}
