package demoapi

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	adminpb "github.com/execgate/execgate/gen/zitadel/admin/v1"
	sessionpb "github.com/execgate/execgate/gen/zitadel/session/v2"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
)

// DescriptorSet returns the serialized FileDescriptorSet of every service, with
// all imports, each file after those that it imports: what a gateway can be
// given in place of reflection.
func DescriptorSet() []byte {
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range []protoreflect.FileDescriptor{
		userpb.File_zitadel_user_v2_user_service_proto,
		sessionpb.File_zitadel_session_v2_session_service_proto,
		adminpb.File_zitadel_admin_v1_admin_proto,
		demopb.File_execgate_demo_v1_stream_proto,
		demopb.File_execgate_demo_v1_route_proto,
	} {
		add(f)
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		panic(fmt.Sprintf("encode the descriptors of the demo API: %v", err)) // they are compiled in
	}
	return raw
}
