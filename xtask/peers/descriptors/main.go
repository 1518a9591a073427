// Command descriptors writes the client API's registered protobuf files, as
// etcd's published Go module carries them, to standard output as one
// FileDescriptorSet, so that our own schemas can be held against them.
package main

import (
	"log"
	"os"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	// One message of each file is enough to find the file.
	seeds := []proto.Message{
		(*mvccpb.KeyValue)(nil),
		(*authpb.User)(nil),
		(*pb.RangeRequest)(nil),
		(*v3lockpb.LockRequest)(nil),
		(*v3electionpb.LeaderKey)(nil),
		(*grpc_health_v1.HealthCheckRequest)(nil),
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, seed := range seeds {
		var file protoreflect.FileDescriptor = seed.ProtoReflect().Descriptor().ParentFile()
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	out, err := proto.Marshal(set)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(out); err != nil {
		log.Fatal(err)
	}
}
