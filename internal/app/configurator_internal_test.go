package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// BenchmarkConfigure is what a change costs on each gateway, besides the index: every record is converted again.
func BenchmarkConfigure(b *testing.B) {
	const n = 10_000
	var d store.Dump
	add := func(item store.Item, err error) {
		if err != nil {
			b.Fatal(err)
		}
		d.Items = append(d.Items, item)
	}
	for i := range n {
		id := fmt.Sprint(i)
		add((&store.Target{ID: id, Name: id, Endpoint: "https://hooks.example.com/" + id, Type: store.TargetWebhook, Timeout: time.Second}).Item())
		add((&store.Execution{ID: "request/a.S/M" + id, Targets: []string{id}}).Item())
		p := policy.Target{Enabled: new(true), MaxConcurrency: new(uint32(3)), Breaker: &policy.Breaker{MinCalls: new(uint32(3))}, Headers: map[string]string{"X-A": "b"}}
		value, err := p.Encode()
		add(store.Item{Kind: store.KindTargetPolicy, ID: id, Value: value}, err)
	}
	state, err := store.NewState(d)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := configure(state, policy.TargetDefaults{}); err != nil {
			b.Fatal(err)
		}
	}
}
