package admin_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
)

func byName(name string, method resourcev3.TextFilterMethod) *actionv3.TargetSearchFilter {
	return &actionv3.TargetSearchFilter{Query: &actionv3.TargetSearchFilter_Name{Name: &actionv3.TargetNameFilter{Name: name, Method: method}}}
}

func byIDs(ids ...string) *actionv3.TargetSearchFilter {
	return &actionv3.TargetSearchFilter{Query: &actionv3.TargetSearchFilter_InIds{InIds: &actionv3.InTargetIDsFilter{Ids: ids}}}
}

func byType(t actionv3.ExecutionType) *actionv3.ExecutionSearchFilter {
	return &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_ExecutionType{ExecutionType: &actionv3.ExecutionTypeFilter{Type: t}}}
}

func byTarget(id string) *actionv3.ExecutionSearchFilter {
	return &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_Target{Target: &actionv3.TargetFilter{Id: id}}}
}

func byInclude(id string) *actionv3.ExecutionSearchFilter {
	return &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_Include{Include: &actionv3.IncludeFilter{Include: id}}}
}

func targets(filters ...*actionv3.TargetSearchFilter) *actionv3.SearchTargetsRequest {
	return &actionv3.SearchTargetsRequest{Query: &resourcev3.ListQuery{Asc: true}, Filters: filters}
}

func executions(filters ...*actionv3.ExecutionSearchFilter) *actionv3.SearchExecutionsRequest {
	return &actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Asc: true}, Filters: filters}
}

func TestSearchesThatAreRefused(t *testing.T) {
	t.Parallel()
	const invalid = codes.InvalidArgument
	conditionList := func(c ...*actionv3.Condition) *actionv3.SearchExecutionsRequest {
		return executions(inConditions(c...))
	}
	grpcOnly := []protocol{overGRPC}
	rows := []failure{
		{name: "limit above 1000", given: ask(&actionv3.SearchTargetsRequest{Query: &resourcev3.ListQuery{Limit: 1001}}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
		{name: "limit above 1000 of executions", given: ask(&actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Limit: 1001}}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
		{name: "limit above a configured maximum", options: []func(*admin.Options){func(o *admin.Options) { o.Limits.Max = 5 }}, given: ask(&actionv3.SearchTargetsRequest{Query: &resourcev3.ListQuery{Limit: 6}}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
		{name: "target filter without a query", given: ask(targets(&actionv3.TargetSearchFilter{})), code: invalid, id: "GRPC-vR9nC", text: "List.Query.Invalid"},
		{name: "execution filter without a filter", given: ask(executions(byInclude("request"), &actionv3.ExecutionSearchFilter{})), code: invalid, id: "GRPC-vR9nC", text: "List.Query.Invalid"},
		{name: "name filter of 201 characters", given: ask(targets(byName(strings.Repeat("ü", 201), 0))), code: invalid, text: "name"},
		{name: "name filter with an unknown method", given: ask(targets(byName("a", 8))), code: invalid, text: "method"},
		{name: "in_ids without ids", given: ask(targets(byIDs())), code: invalid, text: "in_ids"},
		{name: "unknown sorting column", given: ask(&actionv3.SearchTargetsRequest{SortingColumn: 10}), code: invalid, text: "sorting_column", only: grpcOnly},
		{name: "in_conditions without conditions", given: ask(conditionList()), code: invalid, text: "in_conditions"},
		{name: "in_conditions with an empty condition", given: ask(conditionList(requestAll(), &actionv3.Condition{})), code: invalid, text: "condition_type"},
		{name: "in_conditions with a request without level", given: ask(conditionList(requestCondition(&actionv3.RequestExecution{}))), code: invalid, text: "condition"},
		{name: "in_conditions with an event without level", given: ask(conditionList(eventCondition(&actionv3.EventExecution{}))), code: invalid, text: "condition"},
		{name: "in_conditions with all that is false", given: ask(conditionList(requestCondition(&actionv3.RequestExecution{Condition: &actionv3.RequestExecution_All{}}))), code: invalid, text: "all"},
		{name: "target filter with an empty id", given: ask(executions(byTarget(""))), code: invalid, text: "target"},
		{name: "include filter with an empty id", given: ask(executions(byInclude(""))), code: invalid, text: "include"},
		{name: "unknown execution type", given: ask(executions(byType(5))), code: invalid, text: "type"},
	}
	runFailures(t, rows)
}

// names makes targets with these names, in this order.
func (f *fixture) names(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.target(name)
	}
}

// found returns the names of the targets that a search finds.
func (f *fixture) found(p protocol, req *actionv3.SearchTargetsRequest) []string {
	f.t.Helper()
	res, out := f.call(p, req)
	if out.code != codes.OK || p == overREST && out.http != 200 {
		f.t.Fatalf("%+v", out)
	}
	names := []string{}
	for _, r := range res.(*actionv3.SearchTargetsResponse).GetResult() {
		names = append(names, r.GetTarget().GetName())
	}
	return names
}

// foundIDs returns the ids of the executions that a search finds.
func (f *fixture) foundIDs(p protocol, req *actionv3.SearchExecutionsRequest) []string {
	f.t.Helper()
	res, out := f.call(p, req)
	if out.code != codes.OK {
		f.t.Fatalf("%+v", out)
	}
	ids := []string{}
	for _, r := range res.(*actionv3.SearchExecutionsResponse).GetResult() {
		ids = append(ids, r.GetDetails().GetId())
	}
	return ids
}

func TestTheNameFilterComparesAsItsMethodSays(t *testing.T) {
	t.Parallel()
	const (
		equals         = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_EQUALS
		equalsFold     = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE
		startsWith     = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_STARTS_WITH
		startsWithFold = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_STARTS_WITH_IGNORE_CASE
		contains       = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_CONTAINS
		containsFold   = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_CONTAINS_IGNORE_CASE
		endsWith       = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_ENDS_WITH
		endsWithFold   = resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_ENDS_WITH_IGNORE_CASE
	)
	all := []string{"Audit", "audit log", "Log AUDIT", "100%", "1000", "a_b", "aXb"}
	rows := []struct {
		value  string
		method resourcev3.TextFilterMethod
		want   []string
	}{
		{"Audit", equals, []string{"Audit"}},
		{"audit", equals, nil},
		{"aUDIT", equalsFold, []string{"Audit"}},
		{"audit", startsWith, []string{"audit log"}},
		{"audit", startsWithFold, []string{"Audit", "audit log"}},
		{"udit", contains, []string{"Audit", "audit log"}},
		{"UDIT", containsFold, []string{"Audit", "audit log", "Log AUDIT"}},
		{"log", endsWith, []string{"audit log"}},
		{"audit", endsWith, nil},
		{"audit", endsWithFold, []string{"Audit", "Log AUDIT"}},
		{"100%", startsWith, []string{"100%"}},
		{"100%", equalsFold, []string{"100%"}},
		{"a_b", contains, []string{"a_b"}},
		{"_", containsFold, []string{"a_b"}},
		{"%", endsWithFold, []string{"100%"}},
		{"", equals, nil},
		{"", equalsFold, all},
		{"", startsWith, all},
		{"", startsWithFold, all},
		{"", contains, all},
		{"", containsFold, all},
		{"", endsWith, all},
		{"", endsWithFold, all},
	}
	f := start(t)
	f.names(all...)
	for _, row := range rows {
		for _, p := range tableProtocols {
			got := f.found(p, targets(byName(row.value, row.method)))
			if !slices.Equal(got, row.want) {
				t.Errorf("%s %v %q: %q, want %q", p, row.method, row.value, got, row.want)
			}
		}
	}
}

func TestFiltersOfTargetsAreCombinedWithAnd(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("alpha"), f.target("beta")
		for name, row := range map[string]struct {
			req  *actionv3.SearchTargetsRequest
			want []string
		}{
			"none":                     {targets(), []string{"alpha", "beta"}},
			"one id":                   {targets(byIDs(a)), []string{"alpha"}},
			"unknown ids are ignored":  {targets(byIDs("x", b, "y", b)), []string{"beta"}},
			"no id that is known":      {targets(byIDs("x")), []string{}},
			"id and name":              {targets(byIDs(a, b), byName("b", resourcev3.TextFilterMethod_TEXT_FILTER_METHOD_STARTS_WITH)), []string{"beta"}},
			"two that exclude another": {targets(byIDs(a), byIDs(b)), []string{}},
		} {
			if got := f.found(p, row.req); !slices.Equal(got, row.want) {
				t.Errorf("%s: %q, want %q", name, got, row.want)
			}
		}
	})
}

func TestTargetsAreSortedByTheColumnAndThenByID(t *testing.T) {
	t.Parallel()
	f := start(t)
	make := func(name, url string, seconds int, call bool, flag string) string {
		req := newTarget(name)
		req.Target.Timeout = durationpb.New(time.Duration(seconds) * time.Second)
		req.Target.TargetType = &actionv3.Target_RestWebhook{RestWebhook: &actionv3.SetRESTWebhook{Url: url}}
		if call {
			req.Target.TargetType = &actionv3.Target_RestRequestResponse{RestRequestResponse: &actionv3.SetRESTRequestResponse{Url: url}}
		}
		switch flag {
		case "async":
			req.Target.ExecutionType = &actionv3.Target_IsAsync{IsAsync: true}
		case "interrupt":
			req.Target.ExecutionType = &actionv3.Target_InterruptOnError{InterruptOnError: true}
		}
		return f.must(req).(*actionv3.CreateTargetResponse).GetDetails().GetId()
	}
	first := make("c", "http://h/2", 20, true, "")
	make("a", "http://h/3", 10, false, "async")
	make("B", "http://h/1", 20, true, "interrupt")
	make("d", "http://h/2", 5, false, "")
	f.must(&actionv3.PatchTargetRequest{Id: first, Target: &actionv3.PatchTarget{Timeout: durationpb.New(21 * time.Second)}})

	for column, want := range map[actionv3.TargetFieldName]string{
		actionv3.TargetFieldName_TARGET_FIELD_NAME_UNSPECIFIED:        "caBd",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_ID:                 "caBd",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_CREATION_DATE:      "caBd",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_CHANGE_DATE:        "aBdc",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_NAME:               "Bacd",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_TARGET_TYPE:        "adcB",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_URL:                "Bcda",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT:            "daBc",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_ASYNC:              "cBda",
		actionv3.TargetFieldName_TARGET_FIELD_NAME_INTERRUPT_ON_ERROR: "cadB",
	} {
		for _, p := range tableProtocols {
			req := &actionv3.SearchTargetsRequest{SortingColumn: column, Query: &resourcev3.ListQuery{Asc: true}}
			if got := strings.Join(f.found(p, req), ""); got != want {
				t.Errorf("%s %v ascending: %s, want %s", p, column, got, want)
			}
			req.Query.Asc = false
			backwards := []byte(want)
			slices.Reverse(backwards)
			if got := strings.Join(f.found(p, req), ""); got != string(backwards) {
				t.Errorf("%s %v descending: %s, want %s", p, column, got, backwards)
			}
			res, _ := f.call(p, req)
			if echo := res.(*actionv3.SearchTargetsResponse).GetSortingColumn(); echo != column {
				t.Errorf("%s: sorting column %v in the answer, want %v", p, echo, column)
			}
		}
	}
}

func TestPagesOfTargets(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *admin.Options) { o.Limits = admin.Limits{Default: 3, Max: 6} })
	f.names("a", "b", "c", "d", "e")
	for name, row := range map[string]struct {
		query *resourcev3.ListQuery
		want  string
		limit uint32
		end   bool
	}{
		"no query: default limit, descending": {nil, "edc", 3, false},
		"limit 0 is the default":              {&resourcev3.ListQuery{Asc: true}, "abc", 3, false},
		"limit as given":                      {&resourcev3.ListQuery{Asc: true, Limit: 2}, "ab", 2, false},
		"the largest limit":                   {&resourcev3.ListQuery{Asc: true, Limit: 6}, "abcde", 6, true},
		"offset after sorting":                {&resourcev3.ListQuery{Offset: 1, Limit: 2}, "dc", 2, false},
		"the last page":                       {&resourcev3.ListQuery{Asc: true, Offset: 3}, "de", 3, true},
		"a page that ends exactly":            {&resourcev3.ListQuery{Asc: true, Offset: 3, Limit: 2}, "de", 2, true},
		"offset at the end":                   {&resourcev3.ListQuery{Offset: 5}, "", 3, true},
		"offset beyond the end":               {&resourcev3.ListQuery{Offset: 1 << 63}, "", 3, true},
	} {
		for _, p := range tableProtocols {
			req := &actionv3.SearchTargetsRequest{Query: row.query}
			if got := strings.Join(f.found(p, req), ""); got != row.want {
				t.Errorf("%s %s: %s, want %s", p, name, got, row.want)
			}
			res, _ := f.call(p, req)
			d := res.(*actionv3.SearchTargetsResponse).GetDetails()
			if d.GetAppliedLimit() != row.limit || d.GetEndOfList() != row.end || d.GetTotalResult() != 5 {
				t.Errorf("%s %s: details %v", p, name, d)
			}
		}
	}
}

func TestTheDefaultLimitIs100AndTheLargest1000(t *testing.T) {
	t.Parallel()
	f := start(t)
	for limit, want := range map[uint32]uint32{0: 100, 1: 1, 1000: 1000} {
		res := f.must(&actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Limit: limit}}).(*actionv3.SearchExecutionsResponse)
		if got := res.GetDetails().GetAppliedLimit(); got != want {
			t.Errorf("limit %d: applied %d, want %d", limit, got, want)
		}
	}
}

func TestListDetailsNameTheLastChangeThatTheyHaveSeen(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		details := func() *resourcev3.ListDetails {
			res, _ := f.call(p, targets(byIDs("none")))
			return res.(*actionv3.SearchTargetsResponse).GetDetails()
		}
		if d := details(); d.GetProcessedSequence() != 0 || d.GetTimestamp() != nil || !d.GetEndOfList() {
			t.Errorf("of an empty store: %v", d)
		}
		f.names("a", "b")
		begin := details()
		if begin.GetProcessedSequence() == 0 || time.Since(begin.GetTimestamp().AsTime()) > time.Minute {
			t.Errorf("after two changes: %v", begin)
		}
		f.must(&actionv3.DeleteTargetRequest{Id: f.last})
		if d := details(); d.GetProcessedSequence() <= begin.GetProcessedSequence() || !d.GetTimestamp().AsTime().After(begin.GetTimestamp().AsTime()) {
			t.Errorf("after another: %v, before %v", d, begin)
		}
	})
}

func TestExecutionsAreFoundByTheirFilters(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		a, b := f.target("a"), f.target("b")
		var ids []string
		put := func(c *actionv3.Condition, targets []string, includes ...string) {
			ids = append(ids, f.put(c, targets, includes...))
		}
		put(requestAll(), []string{a})
		put(requestService(knownService), nil, "request")
		put(requestMethod(knownMethod), []string{b, a})
		put(responseAll(), []string{b})
		put(event("user.human.added"), []string{a})
		put(group("user.human"), []string{b})
		put(function("preuserinfo"), []string{b})
		all := func(i ...int) []string {
			want := []string{}
			for _, n := range i {
				want = append(want, ids[n])
			}
			return want
		}
		for name, row := range map[string]struct {
			req  *actionv3.SearchExecutionsRequest
			want []string
		}{
			"nothing asked":                              {executions(), ids},
			"a service condition, not its methods":       {executions(inConditions(requestService(knownService))), all(1)},
			"several conditions":                         {executions(inConditions(requestAll(), responseAll(), eventAll())), all(0, 3)},
			"a group with its suffix":                    {executions(inConditions(group("user.human.*"))), all(5)},
			"a function by its older name":               {executions(inConditions(function("Action.Flow.Type.CustomiseToken.Action.TriggerType.PreUserinfoCreation"))), all(6)},
			"a condition that is not stored":             {executions(inConditions(eventAll())), all()},
			"a service with a slash is no service":       {executions(inConditions(requestService("/" + knownService))), all()},
			"a method without its slash is no method":    {executions(inConditions(requestMethod(knownMethod[1:]))), all()},
			"type request":                               {executions(byType(actionv3.ExecutionType_EXECUTION_TYPE_REQUEST)), all(0, 1, 2)},
			"type response":                              {executions(byType(actionv3.ExecutionType_EXECUTION_TYPE_RESPONSE)), all(3)},
			"type event":                                 {executions(byType(actionv3.ExecutionType_EXECUTION_TYPE_EVENT)), all(4, 5)},
			"type function":                              {executions(byType(actionv3.ExecutionType_EXECUTION_TYPE_FUNCTION)), all(6)},
			"type unspecified":                           {executions(byType(0)), ids},
			"target, not through includes":               {executions(byTarget(a)), all(0, 2, 4)},
			"unknown target":                             {executions(byTarget("x")), all()},
			"include":                                    {executions(byInclude("request")), all(1)},
			"include that nobody includes":               {executions(byInclude("response")), all()},
			"include that is no id":                      {executions(byInclude("nonsense")), all()},
			"type and target":                            {executions(byType(actionv3.ExecutionType_EXECUTION_TYPE_REQUEST), byTarget(b)), all(2)},
			"conditions and target that exclude another": {executions(inConditions(requestAll()), byTarget(b)), all()},
		} {
			if got := f.foundIDs(p, row.req); !slices.Equal(got, row.want) {
				t.Errorf("%s: %q, want %q", name, got, row.want)
			}
		}
		backwards := slices.Clone(ids)
		slices.Reverse(backwards)
		if got := f.foundIDs(p, &actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Limit: 3, Offset: 1}}); !slices.Equal(got, backwards[1:4]) {
			t.Errorf("page: %q", got)
		}
		f.must(putRequest(requestAll(), []string{b}))
		if got := f.foundIDs(p, executions()); !slices.Equal(got, ids) {
			t.Errorf("putting again moved the creation date: %q", got)
		}
	})
}

func TestTheIncludeFilterTakesBothSeparators(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.put(requestService(knownService), []string{f.target("a")})
	f.put(requestAll(), nil, "request/"+knownService)
	for _, id := range []string{"request/" + knownService, "request." + knownService} {
		if got := f.foundIDs(overREST, executions(byInclude(id))); !slices.Equal(got, []string{"request"}) {
			t.Errorf("%s: %q", id, got)
		}
	}
}

func TestRESTSearchesTakeQueryParametersAndAnArray(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.names("a", "b", "c")
	const path = "/resources/v3alpha/targets/_search"
	for name, row := range map[string]struct {
		query, body string
		want        string
	}{
		"no body":                      {want: "cba"},
		"empty array":                  {body: "[]", want: "cba"},
		"null":                         {body: "null", want: "cba"},
		"white space":                  {body: " \n", want: "cba"},
		"ascending":                    {query: "?query.asc=true", want: "abc"},
		"offset and limit":             {query: "?query.offset=1&query.limit=1", want: "b"},
		"column by name":               {query: "?sortingColumn=TARGET_FIELD_NAME_NAME", want: "cba"},
		"column by number":             {query: "?sortingColumn=4&query.asc=true", want: "abc"},
		"column by its proto name":     {query: "?sorting_column=4&query.asc=true", want: "abc"},
		"unknown parameters":           {query: "?query.asc=true&nope=1&query.nope=2", want: "abc"},
		"filter":                       {body: `[{"name":{"name":"B","method":"TEXT_FILTER_METHOD_EQUALS_IGNORE_CASE"}}]`, want: "b"},
		"filter method by number":      {body: `[{"name":{"name":"B","method":1}}]`, want: "b"},
		"filter with unknown fields":   {body: `[{"name":{"name":"b","nope":1},"more":[]}]`, want: "b"},
		"two filters":                  {body: `[{"name":{"name":"b"}},{"name":{"name":"c"}}]`, want: ""},
		"both names of a nested field": {body: `[{"in_ids":{"ids":["x"]}},{"inIds":{"ids":["x"]}}]`, want: ""},
	} {
		out := f.rest("POST", path+row.query, row.body)
		var answer struct {
			Result []struct{ Target struct{ Name string } }
		}
		if err := json.Unmarshal([]byte(out.body), &answer); err != nil || out.http != 200 {
			t.Errorf("%s: %+v", name, out)
		}
		got := ""
		for _, r := range answer.Result {
			got += r.Target.Name
		}
		if got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
	}
	for name, row := range map[string]struct{ query, body string }{
		"an object for the array":     {body: `{}`},
		"garbage":                     {body: `[`},
		"garbage behind the array":    {body: `[] x`},
		"an array of numbers":         {body: `[1]`},
		"a filter of null":            {body: `[null]`},
		"an empty filter":             {body: `[{}]`},
		"two filters in one":          {body: `[{"name":{"name":"b"},"inIds":{"ids":["x"]}}]`},
		"an unknown column by name":   {query: "?sortingColumn=NOPE"},
		"an unknown column by number": {query: "?sortingColumn=99"},
		"a limit that is no number":   {query: "?query.limit=ten"},
		"a negative limit":            {query: "?query.limit=-1"},
		"a limit above 1000":          {query: "?query.limit=1001"},
		"an unknown method by number": {body: `[{"name":{"name":"b","method":8}}]`},
		"a value of a wrong type":     {body: `[{"name":{"name":1}}]`},
	} {
		if out := f.rest("POST", path+row.query, row.body); out.http != 400 || out.code != codes.InvalidArgument {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

func TestManyTargetsArePagedWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	f := start(t)
	const n = 25
	for i := range n {
		f.target(fmt.Sprintf("t%d", i))
	}
	seen := map[string]bool{}
	for offset := uint64(0); ; offset += 10 {
		res := f.must(&actionv3.SearchTargetsRequest{
			Query:         &resourcev3.ListQuery{Offset: offset, Limit: 10},
			SortingColumn: actionv3.TargetFieldName_TARGET_FIELD_NAME_TIMEOUT, // all equal: the id decides
		}).(*actionv3.SearchTargetsResponse)
		for _, r := range res.GetResult() {
			seen[r.GetDetails().GetId()] = true
		}
		if res.GetDetails().GetEndOfList() {
			break
		}
	}
	if len(seen) != n {
		t.Errorf("%d targets on all pages, want %d", len(seen), n)
	}
}

func TestAFoundTargetIsTheWholeResource(t *testing.T) {
	t.Parallel()
	f := start(t)
	id := f.target("a")
	res := f.must(targets()).(*actionv3.SearchTargetsResponse)
	if diff := cmp.Diff(f.getV3(id).String(), res.GetResult()[0].String()); diff != "" || len(res.GetResult()) != 1 {
		t.Error(diff)
	}
	if !proto.Equal(f.getV3(id), res.GetResult()[0]) {
		t.Error("not equal")
	}
}
