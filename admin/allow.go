package admin

import (
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// restRoute is a verb and the segments of a path: literals, "*" for one of any kind, and "**", at most once, for one or
// more.
type restRoute struct {
	verb     string
	segments []string
}

// restRoutes are the HTTP rules of the services. The mux that serves them does not tell which verbs a path has, and an
// answer 405 has to.
var restRoutes = func() (routes []restRoute) {
	for _, file := range []protoreflect.FileDescriptor{
		actionv3.File_zitadel_resources_action_v3alpha_action_service_proto,
		actionv2.File_zitadel_action_v2_action_service_proto,
		gatewaypb.File_execgate_v1_gateway_service_proto,
	} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			rule, _ := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			verb, path := httpRule(rule)
			segments := strings.Split(path, "/")
			for j, s := range segments {
				switch {
				case strings.HasSuffix(s, "=**}"):
					segments[j] = "**"
				case strings.HasPrefix(s, "{"):
					segments[j] = "*"
				}
			}
			routes = append(routes, restRoute{verb, segments})
		}
	}
	return routes
}()

func httpRule(rule *annotations.HttpRule) (verb, path string) {
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return "GET", p.Get
	case *annotations.HttpRule_Put:
		return "PUT", p.Put
	case *annotations.HttpRule_Post:
		return "POST", p.Post
	case *annotations.HttpRule_Delete:
		return "DELETE", p.Delete
	case *annotations.HttpRule_Patch:
		return "PATCH", p.Patch
	}
	return "", ""
}

func (r restRoute) matches(segments []string) bool {
	for i, s := range r.segments {
		switch {
		case i >= len(segments):
			return false
		case s == "**":
			rest := restRoute{segments: r.segments[i+1:]}
			from := len(segments) - len(rest.segments)
			return from > i && rest.matches(segments[from:])
		case s != "*" && s != segments[i]:
			return false
		}
	}
	return len(segments) == len(r.segments)
}

// allowedVerbs returns the verbs that a path has, sorted, without the one that was refused.
func allowedVerbs(path, refused string) []string {
	segments := strings.Split(path, "/")
	var verbs []string
	for _, r := range restRoutes {
		if r.verb != refused && r.matches(segments) {
			verbs = append(verbs, r.verb)
		}
	}
	slices.Sort(verbs)
	return slices.Compact(verbs)
}
