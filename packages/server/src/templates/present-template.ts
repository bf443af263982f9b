import type { TemplateAnswer, TemplateRevisionAnswer } from '@mags/protocol'
import type { Template, TemplateRevision } from './template.ts'

/** A template as the API gives it. */
export function presentTemplate(template: Template): TemplateAnswer {
  return {
    id: template.id,
    name: template.name,
    description: template.description,
    script_type: 'inline',
    default_vcpus: template.vcpus,
    default_memory_mb: template.memoryMb,
    latest_revision: presentRevision(template.latest),
    created_at: template.createdAt,
    updated_at: template.updatedAt,
    user_id: template.userId,
  }
}

export function presentRevision(revision: TemplateRevision): TemplateRevisionAnswer {
  return {
    id: revision.id,
    template_id: revision.templateId,
    revision: revision.revision,
    script: revision.script,
    environment: { ...revision.environment },
    comment: revision.comment,
    created_at: revision.createdAt,
    created_by: revision.createdBy,
  }
}
