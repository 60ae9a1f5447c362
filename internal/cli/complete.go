package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
)

// completionTime is how long a shell waits for names.
const completionTime = 2 * time.Second

// completer lists the words that may stand in a place.
type completer func(ctx context.Context, c *client, prefix string) ([]string, error)

// option adds to a command that has a connection.
type option func(cmd *cobra.Command, c *connection)

// words completes the first n arguments, all of them with n < 0.
func words(n int, list completer) option {
	return func(cmd *cobra.Command, c *connection) {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if n >= 0 && len(args) >= n {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return c.complete(cmd.Context(), prefix, list)
		}
	}
}

// flagWords completes the value of a flag.
func flagWords(flag string, list completer) option {
	return func(cmd *cobra.Command, c *connection) {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return c.complete(cmd.Context(), prefix, list)
		})
	}
}

// noWords completes nothing, no files either.
func noWords(cmd *cobra.Command, _ *connection) { cmd.ValidArgsFunction = cobra.NoFileCompletions }

// complete asks a running gateway. Without one there are no words: a completion
// has no way to complain.
func (c *connection) complete(ctx context.Context, prefix string, list completer) ([]string, cobra.ShellCompDirective) {
	client, err := c.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.close()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	all, err := list(ctx, client, prefix)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var fitting []string
	for _, word := range all {
		if strings.HasPrefix(word, prefix) && word == plainText(word) && !strings.ContainsAny(word, "\n\t") {
			fitting = append(fitting, word)
		}
	}
	return fitting, cobra.ShellCompDirectiveNoFileComp
}

// someTargets lists names of targets.
func someTargets(ctx context.Context, c *client, prefix string) ([]string, error) {
	req := &actionv2.ListTargetsRequest{Pagination: &filterv2.PaginationRequest{Limit: pageSize}}
	if prefix != "" {
		req.Filters = []*actionv2.TargetSearchFilter{nameFilter(prefix, filterv2.TextFilterMethod_TEXT_FILTER_METHOD_STARTS_WITH)}
	}
	res, err := c.targets.ListTargets(ctx, req)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range res.GetTargets() {
		names = append(names, t.GetName())
	}
	return names, nil
}

// someExecutions lists ids of executions.
func someExecutions(ctx context.Context, c *client, _ string) ([]string, error) {
	res, err := c.executions.SearchExecutions(ctx, &actionv3.SearchExecutionsRequest{Query: &resourcev3.ListQuery{Limit: pageSize}})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range res.GetResult() {
		ids = append(ids, e.GetDetails().GetId())
	}
	return ids, nil
}

// allMethods lists the methods of the API behind the gateway.
func allMethods(ctx context.Context, c *client, _ string) ([]string, error) {
	res, err := c.targets.ListExecutionMethods(ctx, &actionv2.ListExecutionMethodsRequest{})
	return res.GetMethods(), err
}

// possibleExecutions lists ids that an execution can have. Services come
// before methods are asked for: there are few of them.
func possibleExecutions(ctx context.Context, c *client, prefix string) ([]string, error) {
	kind, rest, inside := strings.Cut(prefix, "/")
	if !inside {
		return []string{"request", "request/", "response", "response/", "function/", "event", "event/"}, nil
	}
	switch kind {
	case "function":
		res, err := c.targets.ListExecutionFunctions(ctx, &actionv2.ListExecutionFunctionsRequest{})
		return prefixed("function/", res.GetFunctions()), err
	case "request", "response":
		if strings.Contains(rest, "/") {
			methods, err := allMethods(ctx, c, "")
			return prefixed(kind, methods), err
		}
		res, err := c.targets.ListExecutionServices(ctx, &actionv2.ListExecutionServicesRequest{})
		ids := prefixed(kind+"/", res.GetServices())
		for _, id := range ids {
			ids = append(ids, id+"/")
		}
		return ids, err
	}
	return nil, nil
}

func prefixed(prefix string, words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = prefix + w
	}
	return out
}
