package conditions_test

import (
	"fmt"
	"testing"

	"github.com/execgate/execgate/conditions"
)

// BenchmarkIndexCall shows that a lookup costs the same with any number of
// executions, and allocates nothing.
func BenchmarkIndexCall(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000, 100_000} {
		x := index(b, manyExecutions(b, n)...)
		for _, call := range []struct{ matches, method string }{
			{"method", "/pkg7.Svc/M7"}, {"service", "/pkg8.Svc/Other"}, {"nothing", "/other.Svc/Method"},
		} {
			b.Run(fmt.Sprintf("%s/%d", call.matches, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					request, _ := x.Call(call.method)
					if (request != nil) != (call.matches != "nothing") {
						b.Fatal("wrong answer")
					}
				}
			})
		}
	}
}

// BenchmarkNewIndex is what a change of the configuration costs.
func BenchmarkNewIndex(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		executions := manyExecutions(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				conditions.NewIndex(executions, conditions.Options{})
			}
		})
	}
}
