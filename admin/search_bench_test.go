package admin_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
	"github.com/execgate/execgate/store"
)

const many = 10_000

// populate stores 10,000 targets and as many executions in one commit.
func (f *fixture) populate() {
	f.t.Helper()
	_, err := f.replica.Update(f.t.Context(), "bench", "populate", func(*store.State) ([]store.Item, error) {
		items := make([]store.Item, 0, 2*many)
		begin := time.Now().UTC()
		for i := range many {
			at := begin.Add(time.Duration(i) * time.Microsecond)
			id := fmt.Sprintf("%018d", 300_000_000_000_000_000+i)
			target := store.Target{
				ID: id, Name: fmt.Sprintf("Target %05d", (i*7919)%many), Endpoint: fmt.Sprintf("https://hooks.example.com/%d", i), Type: store.TargetWebhook,
				Timeout: time.Duration(1+i%30) * time.Second, SigningKey: "012345678901234567890123456789012345", Sequence: 1, CreatedAt: at, ChangedAt: at,
			}
			execution := store.Execution{ID: fmt.Sprintf("request/pkg%d.Service/Method", i), Targets: []string{id}, Sequence: 1, CreatedAt: at, ChangedAt: at}
			for _, record := range []interface{ Item() (store.Item, error) }{&target, &execution} {
				item, err := record.Item()
				if err != nil {
					return nil, err
				}
				items = append(items, item)
			}
		}
		return items, nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// BenchmarkSearch measures whole calls, over a socket, against 10,000 targets and 10,000 executions.
func BenchmarkSearch(b *testing.B) {
	f := start(b)
	f.populate()
	page := &resourcev3.ListQuery{Limit: 100, Offset: 500}
	for name, req := range map[string]proto.Message{
		"targets by creation": &actionv3.SearchTargetsRequest{Query: page},
		"targets by name, filter ignoring case": &actionv3.SearchTargetsRequest{
			Query: page, SortingColumn: actionv3.TargetFieldName_TARGET_FIELD_NAME_NAME,
			Filters: []*actionv3.TargetSearchFilter{byName("TARGET 0", resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_CONTAINS_IGNORE_CASE)},
		},
		"targets by url":                &actionv3.SearchTargetsRequest{Query: page, SortingColumn: actionv3.TargetFieldName_TARGET_FIELD_NAME_URL},
		"targets by timeout, 1000 rows": &actionv3.SearchTargetsRequest{Query: &resourcev3.ListQuery{Limit: 1000}, SortingColumn: actionv3.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT},
		"executions":                    &actionv3.SearchExecutionsRequest{Query: page},
		"executions of a target":        executions(byTarget("300000000000000077")),
	} {
		for _, p := range tableProtocols {
			b.Run(name+" "+string(p), func(b *testing.B) {
				for b.Loop() {
					f.call(p, req)
				}
			})
		}
	}
}

// BenchmarkWrite measures the creation of a target beside 10,000, over a socket and down to the disk.
func BenchmarkWrite(b *testing.B) {
	f := start(b)
	f.populate()
	n := 0
	for b.Loop() {
		f.target(fmt.Sprintf("new %d", n))
		n++
	}
}
